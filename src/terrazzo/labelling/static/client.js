// Which tab this is. A reload keeps the name; a copy of the tab gets one of its own, because a lease is of one tab alone.

const KEY = "terrazzo.client";

export async function clientId() {
  let id = null;
  try {
    id = sessionStorage.getItem(KEY);
  } catch {
    // forbidden: a name for this page alone
  }
  if (id === null || !(await isMine(id))) {
    id = fresh();
    await isMine(id);
  }
  try {
    sessionStorage.setItem(KEY, id);
  } catch {
    // as above
  }
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

function fresh() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return [...bytes].map((one) => one.toString(16).padStart(2, "0")).join("");
}
