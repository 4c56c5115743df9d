// The vote as it stands on the board. Counts are not here before the server reveals them.

function segments(kind, parts) {
  const place = el("div", `text ${kind}`);
  place.tabIndex = 0;
  for (const [changed, text] of parts) {
    if (changed) place.append(el("mark", "", ...breakable(text)));
    else place.append(...breakable(text));
  }
  if (!parts.length) place.append(el("span", "empty", "(empty)"));
  return place;
}

function pairView(pair) {
  const sides = el("div", "sides");
  for (const field of pair.fields) {
    if (field.same) {
      const whole = segments("original", field.original);
      whole.style.gridColumn = "1 / -1";
      sides.append(el("div", "label wide", `${field.label} · unchanged`), whole);
    } else {
      const left = el("div", "", el("div", "label", `${field.label} · original`), segments("original", field.original));
      const right = el("div", "", el("div", "label", `${field.label} · reflected`), segments("reflected", field.reflected));
      sides.append(left, right);
    }
  }
  return sides;
}

function roundView(round) {
  const box = el("div", "round", el("h3", "", round.round === 1 ? "Before the discussion" : "After the discussion"));
  for (const [verdict, label, n] of round.counts) {
    const bar = el("i");
    bar.style.width = `${100 * n / Math.max(1, round.n)}%`;
    box.append(el("div", `line ${verdict}`, el("span", "", label), el("span", "track", bar), el("span", "n", String(n))));
  }
  box.append(el("p", "said", round.words));
  return box;
}

// What the vote slide shows; `desk` takes the presses. Rebuilt only when something in it changed.
function voteView(desk) {
  const { vote } = desk.state;
  const presents = desk.mode === "present" && desk.state.presenter?.mine;
  if (!vote) return noVote(desk, presents);
  const nodes = [el("h2", "", title(vote)), el("p", "sub", `Pair ${vote.pair_id} · ${desk.pair.about}`)];
  if (vote.rounds.length) nodes.push(el("div", "rounds", ...vote.rounds.map(roundView)));
  if (vote.change) nodes.push(el("p", "said strong", vote.change));
  if (vote.adopted) nodes.push(el("p", "said", `Stored as the decision on this pair: ${vote.adopted}.`));
  if (vote.phase === "open" && desk.mode === "present") nodes.push(counting(desk, vote));
  if (presents) nodes.push(steering(desk, vote));
  nodes.push(pairView(desk.pair));
  if (vote.phase === "open" && desk.mode !== "present") nodes.push(ballot(desk, vote));
  return nodes;
}

function title(vote) {
  if (vote.phase === "revealed") return vote.round === 1 ? "Revealed: discuss it, then vote again" : "Revealed: before and after";
  return vote.round === 1 ? "Vote blind" : "Vote again, after the discussion";
}

function noVote(desk, presents) {
  const nodes = [el("h2", "", "Vote on a pair")];
  nodes.push(el("p", "sub", "Everybody votes blind on their own device; then the votes are revealed, discussed, and cast once more."));
  if (presents) nodes.push(picking(desk));
  else nodes.push(el("p", "said", desk.mode === "present" || desk.state.presenter
    ? "No vote is open. Who presents picks the pair." : "No vote is open. Press Present to open one."));
  return nodes;
}

function counting(desk, vote) {
  const most = Math.max(desk.state.voters, vote.n_voted);
  const bar = el("i");
  bar.style.width = `${100 * vote.n_voted / Math.max(1, most)}%`;
  const words = most ? `${vote.n_voted} of ${most} here have voted` : "Nobody who may vote follows yet";
  return el("div", "", el("div", "count", words), el("div", "meter", bar));
}

function steering(desk, vote) {
  const steer = el("div", "steer");
  const add = (className, action, label, more = {}) => {
    const button = plainButton(className, () => desk.act(action, { vote_id: vote.vote_id, round: vote.round, ...more }), label);
    steer.append(button);
    return button;
  };
  if (vote.phase === "open") {
    add("main", "reveal", "Reveal the votes").disabled = !vote.n_voted;
    add("", "close", "Stop this vote");
    return steer;
  }
  if (vote.round === 1) add("main", "again", "Vote again");
  if (vote.adopt?.verdict) add("", "adopt", `Store as the decision: ${vote.adopt.verdict} (${vote.adopt.why})`);
  steer.append(...picking(desk).childNodes);
  return steer;
}

function picking(desk) {
  const steer = el("div", "steer");
  steer.append(
    plainButton("main", () => desk.act("open", { how: "disputed" }), "Next disputed pair"),
    plainButton("", () => desk.act("open", { how: "random" }), "A random undecided pair"));
  const input = el("input");
  input.inputMode = "numeric";
  input.placeholder = "Pair number";
  input.setAttribute("aria-label", "Number of a pair, or a link to it");
  // A link from any page says pair=12; the number alone will do.
  const open = () => {
    const found = /(?:pair=)?(\d+)\s*$/.exec(input.value.trim());
    if (found) {
      input.value = ""; // what is being written is not drawn over
      desk.act("open", { how: "pair", pair_id: Number(found[1]) });
    } else desk.say("error", "Write the number of a pair, or paste a link that ends in pair=12.");
  };
  input.addEventListener("keydown", (event) => { if (event.key === "Enter") open(); });
  steer.append(input, plainButton("", open, "Vote on it"));
  return steer;
}

function ballot(desk, vote) {
  const box = el("div", "asking");
  const mine = desk.pending?.vote_id === vote.vote_id && desk.pending.round === vote.round ? desk.pending.verdict : vote.mine;
  if (!desk.data.me.reviewer) {
    box.append(el("p", "said", "Your role looks on; an admin can give you the role reviewer to vote."));
    return box;
  }
  const choices = el("div", "choices");
  choices.setAttribute("role", "group");
  choices.setAttribute("aria-label", "Your vote");
  for (const [verdict, label] of desk.pair.choices) {
    const button = plainButton("", () => desk.cast(verdict), label);
    button.dataset.verdict = verdict;
    button.setAttribute("aria-pressed", String(mine === verdict));
    choices.append(button);
  }
  const saved = desk.pending ? "Sending …" : mine ? "Your vote is in. You may change it until the votes are revealed." : "Nobody sees what you vote.";
  box.append(choices, el("p", "sub", `${saved} ${vote.n_voted} ${vote.n_voted === 1 ? "has" : "have"} voted.`));
  return box;
}
