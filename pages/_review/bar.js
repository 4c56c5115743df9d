// The bar below the pair: every action as a button with its key.

class Bar {
  // pressed(id, time of the event)
  constructor(zone, pressed) { Object.assign(this, { zone, pressed }); }

  button(id, label, key, kind, brief) {
    const button = plainButton(kind ?? "", (event) => {
      button.blur(); // else Enter or Space would press it again on the next pair
      this.pressed(id, event.timeStamp);
    }, el("span", brief ? "full" : "", label), brief ? el("span", "brief", brief) : null, key ? el("kbd", "", shownKey(key)) : null);
    button.dataset.action = id;
    if (GOING.has(id)) button.dataset.often = ""; // clicked as fast as one likes
    if (key) button.setAttribute("aria-keyshortcuts", ariaKey(key));
    return button;
  }

  // absent: actions that this desk has not at all.
  draw({ mode, keys, look, hasPair, offered, absent }) {
    const editing = mode === "edit";
    const shape = JSON.stringify([editing, hasPair, keys, absent]);
    if (shape !== this.shape) {
      this.shape = shape;
      this.zone.replaceChildren(...(editing ? this.editing() : this.groups(keys, hasPair, absent)));
    }
    for (const button of this.zone.querySelectorAll("button[data-action]")) {
      const id = button.dataset.action;
      const off = mode === "note" || (!editing && !offered(id));
      if (button.disabled !== off) button.disabled = off;
      if (id in look) button.setAttribute("aria-pressed", String(look[id]));
    }
  }

  groups(keys, hasPair, absent) {
    const groups = [el("div", "group decide")];
    for (const action of ACTIONS) {
      if (action.gap) groups.push(el("div", `group ${action.gap}`));
      if (action.gap || absent.includes(action.id) || !(hasPair || AT_END.has(action.id))) continue;
      const button = this.button(action.id, action.label, keys[action.id], action.kind, action.brief);
      button.title = action.help;
      if (action.rare) button.classList.add("rare"); // behind "More" where there is little room
      groups.at(-1).append(button);
    }
    if (hasPair) groups[1].append(this.button("more", "⋯ More", null, "more"));
    return groups.filter((group) => group.childElementCount);
  }

  editing() {
    const save = this.button("save-edit", "✓ Save edit and accept", null, "accept");
    save.append(el("kbd", "", "Ctrl+Enter"));
    const leave = this.button("leave-edit", "Leave, the draft stays");
    leave.append(el("kbd", "", "Esc"));
    return [el("div", "group", save, leave)];
  }
}
