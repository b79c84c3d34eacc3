// Which tab this is. A reload keeps the name; a copy of the tab gets one of its own, because a lease is of one tab alone.
// A page that is opened after a crash takes the name of a tab that is gone: its lease is ours then, and so is its journal.

import { knownClients, rememberClient } from "./journal.js";

const KEY = "terrazzo.client";

export async function clientId() {
  const known = [read(sessionStorage, KEY), ...(navigator.locks ? await knownClients() : [])];
  let id = null;
  for (const one of new Set(known.filter(Boolean))) {
    if (id === null && (await isMine(one))) id = one;
  }
  if (id === null) {
    id = fresh();
    await isMine(id);
  }
  write(sessionStorage, KEY, id);
  await rememberClient(id);
  return id;
}

// True where no other tab of this browser goes by `id`; the name is then held until this page is gone.
function isMine(id) {
  if (!navigator.locks) return Promise.resolve(true); // no locks without https off this machine
  return new Promise((resolve) => {
    const forever = new Promise(() => {});
    navigator.locks.request(`terrazzo ${id}`, { ifAvailable: true }, (lock) => {
      resolve(lock !== null);
      return lock === null ? undefined : forever;
    }).catch(() => resolve(true));
  });
}

function read(storage, key) {
  try {
    return storage.getItem(key);
  } catch {
    return null; // forbidden: a name for this page alone
  }
}

function write(storage, key, value) {
  try {
    storage.setItem(key, value);
  } catch {
    // as above
  }
}

function fresh() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return [...bytes].map((one) => one.toString(16).padStart(2, "0")).join("");
}
