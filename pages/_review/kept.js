// What must outlive this page: entries that are not stored yet, and drafts. localStorage can be read and written at
// once but reaches the disk seconds later (Chromium); IndexedDB hands each write to the operating system, so that it is
// there after a kill of the browser. Both are written; what only IndexedDB has is brought back when a page begins.

const KEPT_NAMES = "assay-review";
const PATIENCE_WITH_STORAGE_MS = 1500;

const kept = {
  ...inBrowser,
  base: null,
  set(name, value) {
    const here = inBrowser.set(name, value);
    return this.write((store) => store.put(value, name)) || here;
  },
  drop(name) {
    inBrowser.drop(name);
    this.write((store) => store.delete(name));
  },
  write(change) {
    if (!this.base) return false;
    try {
      change(this.base.transaction("kept", "readwrite", { durability: "relaxed" }).objectStore("kept"));
      return true;
    } catch { // the browser has closed the base, for instance because its data was cleared
      this.base = null;
      return false;
    }
  },
  async open() {
    const asked = (request) => new Promise((found, failed) => {
      request.onsuccess = () => found(request.result);
      request.onerror = () => failed(request.error);
    });
    try {
      const request = indexedDB.open(KEPT_NAMES, 1);
      request.onupgradeneeded = () => request.result.createObjectStore("kept");
      this.base = await asked(request);
      const store = this.base.transaction("kept").objectStore("kept");
      const [names, values] = await Promise.all([asked(store.getAllKeys()), asked(store.getAll())]);
      names.forEach((name, i) => { if (inBrowser.get(name) === null) inBrowser.set(name, values[i]); });
    } catch { /* forbidden, or broken: localStorage has to do */ }
  },
};

// Fulfilled once what was kept is there, or the browser takes too long over it.
const keptIsThere = Promise.race([kept.open(), new Promise((late) => { setTimeout(late, PATIENCE_WITH_STORAGE_MS); })]);
