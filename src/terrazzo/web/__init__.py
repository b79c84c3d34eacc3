"""What every server of ours needs, whatever it serves: used by serving/ and labelling/.

problems.py   what is refused, in four parts, as RFC 9457 problem details
doors.py      by which names one may ask; what every answer carries
server.py     sockets, patience, signals, and the end
"""
