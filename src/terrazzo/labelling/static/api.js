// What the page asks the server, and how it hears a refusal or that something happened.

const BASE = "/api/v1";

export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `The server answered ${status}.`);
    this.status = status; // 0: no answer at all
    this.problem = problem; // {title, detail, found, expected, hint, command, …}
  }

  get title() {
    return this.problem.title ?? this.message;
  }
}

// The address below /api/v1 of things named by people: at("a b", "samples", 3) is "/projects/a%20b/samples/3".
export function at(project, ...parts) {
  return ["/projects", ...[project, ...parts].map((part) => encodeURIComponent(part))].join("/");
}

export async function get(path, { signal } = {}) {
  return (await answered(path, { signal })).json();
}

// The bytes of a GET, as an ArrayBuffer; `full` for the response itself (202, ETag).
export async function bytes(path, { signal, full = false } = {}) {
  const response = await answered(path, { signal });
  return full ? response : response.arrayBuffer();
}

// POST, PUT, PATCH or DELETE; a body that is a Blob or a buffer goes as it is, anything else as JSON. {} for an empty answer.
export async function send(method, path, body, { signal, keepalive = false } = {}) {
  const isRaw = body instanceof Blob || body instanceof ArrayBuffer || ArrayBuffer.isView(body);
  const headers = { "X-Terrazzo": "1", "Content-Type": isRaw ? "application/octet-stream" : "application/json" };
  const sent = isRaw ? body : body === undefined ? undefined : JSON.stringify(body);
  const response = await answered(path, { method, headers, body: sent, signal, keepalive });
  const text = await response.text();
  return text ? JSON.parse(text) : {};
}

// Hear what happens in a project until the returned function is called; `handler({kind, …})`. A line that broke is
// taken up again, and `handler({kind: "reconnected"})` says that something may have been missed.
//
// Browsers open six connections to a server, for all tabs together, and a line of events holds one for as long as its tab
// is open: so one tab listens, and tells the others. Where tabs cannot agree (no https, another machine) each listens.
export function listen(project, handler) {
  if (!navigator.locks) return line(project, handler);
  const channel = new BroadcastChannel(`terrazzo ${project}`);
  channel.onmessage = ({ data }) => handler(data);
  const left = new AbortController();
  let end = () => {};
  const lead = (isHeir) => new Promise((resolve) => {
    if (left.signal.aborted) {
      resolve();
      return;
    }
    const hear = (event) => {
      handler(event);
      channel.postMessage(event);
    };
    const close = line(project, hear);
    if (isHeir) hear({ kind: "reconnected" }); // nobody listened for a moment
    end = () => {
      close();
      resolve();
    };
  });
  const name = `terrazzo events ${project}`;
  const wait = () => navigator.locks.request(name, { signal: left.signal }, () => lead(true)).catch(() => {}); // left before
  navigator.locks.request(name, { ifAvailable: true }, (lock) => {
    if (lock) return lead(false);
    wait();
    return undefined;
  });
  return () => {
    left.abort();
    end();
    channel.close();
  };
}

function line(project, handler) {
  const source = new EventSource(BASE + at(project, "events"));
  let isBroken = false;
  let timer = 0;
  let again = null;
  source.onopen = () => {
    if (isBroken) handler({ kind: "reconnected" });
    isBroken = false;
  };
  source.onmessage = (message) => handler(JSON.parse(message.data));
  source.onerror = () => {
    if (!isBroken) handler({ kind: "disconnected" });
    isBroken = true;
    if (source.readyState === EventSource.CLOSED && !again) {
      // the browser gives up where the answer was an error, such as a proxy's 502
      timer = setTimeout(() => { again = line(project, handler); handler({ kind: "reconnected" }); }, 3000);
    }
  };
  return () => {
    clearTimeout(timer);
    source.close();
    again?.();
  };
}

// Wait for a job: its result, or its problem as an ApiError. `onProgress(job)` hears of every step.
export async function finished(job, { onProgress = () => {}, signal } = {}) {
  for (let wait = 120; ; wait = Math.min(1000, wait * 1.4)) {
    const told = await get(`/jobs/${encodeURIComponent(job)}`, { signal });
    onProgress(told);
    if (told.state === "done") return told.result;
    if (told.state === "failed" || told.state === "cancelled") {
      throw new ApiError(500, told.problem ?? { title: told.state === "failed" ? "The job failed." : "The job was cancelled." });
    }
    await new Promise((resolve) => { setTimeout(resolve, wait); });
  }
}

// The full address of something the browser itself asks for: a picture, a download.
export function address(path) {
  return BASE + path;
}

async function answered(path, options) {
  let response;
  try {
    response = await fetch(BASE + path, { ...options, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { title: "The server does not answer.", detail: "The server does not answer. Is it still running?" });
  }
  if (response.ok) return response;
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // no words of ours: a proxy's page, or nothing
  }
  if (response.status === 401) dispatchEvent(new CustomEvent("terrazzo-sign-in"));
  throw new ApiError(response.status, problem);
}
