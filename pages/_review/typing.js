// What is typed at the desk: an edit in place, the note of a flag.

class TypingDesk extends ServedDesk {
  editAt(event) {
    const block = event.composedPath().find((node) => node instanceof Element && node.matches(".text.reflected"));
    if (!block || this.mode !== "read" || block.classList.contains("rendered") || !this.stage.seenAt(event.timeStamp)) return;
    this.startEdit(placeAt(block, event.clientX, event.clientY));
  }

  startEdit(at) {
    if (this.mode !== "read" || !this.view || this.stage.pairId !== this.view.pair_id) return;
    const { view } = this;
    this.mode = "edit";
    this.stage.sheet.querySelector(".draft-note")?.remove();
    this.editor = new Editor({ sheet: this.stage.sheet, view, reviewer: this.data.reviewer, at,
      drafted: (texts) => { view.draft = texts && { texts, at: Date.now() / 1000 }; this.log.keepDraft(view.pair_id, texts); } });
    const { draft } = this.editor;
    this.showMessage(draft ? "info" : "", draft ? `Restored your draft of ${clock(draft.at)}.` : "",
      draft && plainButton("", () => { this.editor.startAgain(); this.showMessage("", ""); }, "Start again"));
    this.apply();
  }

  saveEdit(at) {
    if (this.mode !== "edit" || !this.stage.seenAt(at)) return;
    const texts = this.editor.texts();
    if (!texts.instruction.trim()) {
      this.showMessage("error", "The edited instruction is empty. Nothing was stored; write one, or leave with Esc and reject the pair.");
      return;
    }
    this.editor.flush();
    this.mode = "read";
    this.decide("edit", texts, at);
    if (this.editor) this.mode = "edit"; // it could not be taken, and says why
  }

  dropDraft() {
    kept.drop(draftKey(this.data.reviewer, this.view.pair_id));
    this.view.draft = null;
    this.log.keepDraft(this.view.pair_id, null);
    this.redraw();
  }

  startNote() {
    this.mode = "note";
    const { flag } = this.view;
    this.zones.note.value = flag?.note ?? "";
    this.root.querySelector(".remove-flag").hidden = !flag;
    this.apply();
    this.zones.note.select();
  }

  saveNote(action) {
    const { view } = this;
    if (this.mode !== "note" || !view) return;
    const note = action === "flag" ? this.zones.note.value : "";
    const n = this.log.add({ action, pair_id: view.pair_id, note });
    this.acts.push({ n, kind: "flag", view, before: view.flag });
    view.flag = action === "flag" ? { note, text: "Flagged by you just now" } : null;
    this.toRead();
    refreshAround(this.stage.sheet, view, this.open);
    this.aloud(action === "flag" ? `Pair ${view.pair_id} flagged.` : `Flag of pair ${view.pair_id} removed.`);
  }
}
