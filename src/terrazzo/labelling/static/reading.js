// Images that SAM reads before it is asked: the one that is open, then the next. Reading takes seconds, one image at a
// time, so a next one that nobody opened is given up for the one that somebody did.

import * as api from "./api.js";

let ahead = null; // {id, job} of the image after the open one

export function hasSam(editor) {
  return Boolean(editor.state.project?.tools?.sam?.ready);
}

// Resolves when SAM has read the open image.
export async function readOpen(editor) {
  const job = await begin(editor, editor.sample.id);
  if (!job) return;
  if (ahead && ahead.id !== editor.sample.id) giveUp();
  await api.finished(job);
}

// Have the next image read, where the open one is.
export async function readNext(editor) {
  const [id] = editor.nearby ?? [];
  if (!hasSam(editor) || !id || ahead?.id === id) return;
  giveUp();
  const mine = { id, job: null };
  ahead = mine;
  mine.job = await begin(editor, id).catch(() => null);
  if (ahead !== mine && mine.job) cancel(mine.job); // given up while the server was asked
}

function giveUp() {
  if (ahead?.job) cancel(ahead.job);
  ahead = null;
}

function cancel(job) {
  api.send("DELETE", `/jobs/${encodeURIComponent(job)}`).catch(() => {}); // it may be over
}

async function begin(editor, id) {
  const { job = null } = await api.send("POST", api.at(editor.project, "samples", id, "assist", "embedding"), {});
  return job;
}
