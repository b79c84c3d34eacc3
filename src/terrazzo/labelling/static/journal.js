// What was drawn, kept in this browser until the server has it: IndexedDB, written through to the disk before anything is
// sent. An operation stays until it was acknowledged; whoever opens the page next sends what a killed tab left behind.
//
// The base of an operation is the revision that its author saw. It is fixed before the first time it is sent, because the
// server knows an operation that comes again by its whole content: with the operation itself, or in the very transaction
// that takes the one before it out.

const NAME = "terrazzo-journal", VERSION = 1;
const NAMES = 8; // of clients that are asked whether they are gone

// The journal of this browser, or one that keeps nothing where the browser has none (`isKept` false; the page says so).
export async function openJournal(client) {
  try {
    return new Journal(await opened(), client);
  } catch (error) {
    return new Memory(client, error);
  }
}

// The names that pages of this browser went by, the newest first; none where it keeps nothing.
export async function knownClients() {
  try {
    const db = await opened();
    const found = await answer(db.transaction("clients").objectStore("clients").getAll());
    db.close();
    return found.sort((a, b) => b.at - a.at).slice(0, NAMES).map(({ client }) => client);
  } catch {
    return [];
  }
}

// Keep the name of a page, so that the next one knows it after a crash.
export async function rememberClient(client) {
  try {
    const db = await opened();
    const write = db.transaction("clients", "readwrite"), done = finished(write);
    const known = await answer(write.objectStore("clients").get(client));
    write.objectStore("clients").put({ client, seq: known?.seq ?? Date.now() * 1000, at: Date.now() });
    await done;
    db.close();
  } catch {
    // a browser that keeps nothing: `openJournal` tells
  }
}

class Journal {
  constructor(db, client) {
    Object.assign(this, { db, client, isKept: true });
    db.onversionchange = () => db.close();
  }

  // Keep operations, `instead` of others that were never sent; they are on the disk when this resolves. Gives each its
  // `order` in this journal and its `seq` with this client.
  async append(operations, instead = []) {
    const write = this.db.transaction(["operations", "bases", "clients"], "readwrite", { durability: "strict" });
    const done = finished(write);
    done.catch(() => {}); // awaited below; a request that fails first tells it
    const store = write.objectStore("operations");
    const known = await answer(write.objectStore("clients").get(this.client));
    let seq = known?.seq ?? Date.now() * 1000; // numbers of a forgotten journal are never given again
    const kept = operations.map((one) => ({ ...one, client: this.client, seq: (seq += 1) }));
    for (const one of kept) delete one.order;
    write.objectStore("clients").put({ client: this.client, seq, at: Date.now() });
    const orders = kept.map((one) => answer(store.add(one)));
    for (const { order } of instead) {
      store.delete(order);
      write.objectStore("bases").delete(order);
    }
    for (const [i, order] of (await Promise.all(orders)).entries()) kept[i].order = order;
    await done;
    return kept;
  }

  // The server has `operation`: forget it, and let the next one have `base` if it has none yet, at once.
  async settle(operation, next, base) {
    const write = this.db.transaction(["operations", "bases"], "readwrite");
    const done = finished(write);
    write.objectStore("operations").delete(operation.order);
    write.objectStore("bases").delete(operation.order);
    if (next?.base === null) write.objectStore("bases").put(base, next.order);
    await done;
  }

  // Take operations out that are kept elsewhere: at the server, as a branch.
  async forget(operations) {
    await this.append([], operations);
  }

  // Put operations aside that the server will never take; they stay in this browser, and are not sent again.
  async setAside(operations, why) {
    const write = this.db.transaction("operations", "readwrite", { durability: "strict" });
    const done = finished(write);
    for (const one of operations) write.objectStore("operations").put({ ...one, aside: why });
    await done;
  }

  // Operations that the server does not have yet, in the order in which they were drawn: of one project, as `where` says.
  async left(where) {
    const read = this.db.transaction(["operations", "bases"]);
    const [found, keys, bases] = await Promise.all([
      answer(read.objectStore("operations").getAll()), answer(read.objectStore("bases").getAllKeys()), answer(read.objectStore("bases").getAll()),
    ]);
    const base = new Map(keys.map((key, i) => [key, bases[i]]));
    return found.filter((one) => one.where === where && !one.aside).map((one) => ({ ...one, base: base.get(one.order) ?? one.base }));
  }

  close() {
    this.db.close();
  }
}

// What stands in where a browser keeps nothing: operations live as long as the page.
class Memory {
  constructor(client, problem) {
    Object.assign(this, { client, problem, isKept: false, last: Date.now() * 1000 });
  }

  async append(operations) {
    return operations.map((one) => ({ ...one, client: this.client, seq: (this.last += 1), order: this.last }));
  }

  async settle() {}

  async forget() {}

  async setAside() {}

  async left() { return []; }

  close() {}
}

function opened() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, VERSION);
    request.onupgradeneeded = () => {
      const db = request.result;
      db.createObjectStore("operations", { keyPath: "order", autoIncrement: true });
      db.createObjectStore("bases");
      db.createObjectStore("clients", { keyPath: "client" });
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error("Another tab holds an older journal; close it."));
  });
}

function answer(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function finished(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onerror = () => reject(transaction.error);
    transaction.onabort = () => reject(transaction.error ?? new Error("The journal could not be written."));
  });
}
