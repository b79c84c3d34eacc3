"""The labelling project's store: one SQLite file of samples, labels with all their history, and releases.

No torch, no web. `project` is the roof; `store` the file and its transactions, `schema` its tables; `samples` images,
`categories` what they may hold, `tiles` and `trees` labels by their content, `operations` what is asked, `consistency`
what every label keeps to, `objects` masks to objects, `labels` what is written and read, `history` the ways back,
`migration` categories merged; `models` and what they say, `predictions`; `measures`, `orders` and `ranking`, of which
`comparing` and `queue` make what to label next; `origins` who made a label; `listing`, `holdings` lists of samples;
`statuses`, `leases`, `issues`, `audit`; `manifest` and `releases`.
"""

from terrazzo.project.project import Project, open_project

__all__ = ["Project", "open_project"]
