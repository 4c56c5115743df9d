// The board's bar: which slide, who presents, how many are here. It asks the server once a second what the board shows
// and has the page drawn again only when that changed. Every text enters the page as a text node.

const POLL_MS = 1000;
const HIDDEN_MS = 5000;
const BROKEN_MS = 3000;
const WISH_MS = 2500;
const KEYS = {
  arrowright: "next", arrowdown: "next", pagedown: "next", " ": "next",
  arrowleft: "back", arrowup: "back", pageup: "back", home: "first", end: "last", b: "presenter", f: "fullscreen",
};
const VOTE = "vote";

class BoardDesk extends BaseDesk {
  constructor(parent) {
    super();
    this.root = parent.querySelector(".board");
    const find = (name) => this.root.querySelector(name);
    this.zones = { banner: find(".banner"), vote: find(".vote"), bar: find(".bar") };
    this.onKey = (event) => this.key(event);
    this.onVisible = () => { if (!document.hidden) this.ask(); };
    this.session = inTab.get("assay-board") ?? pressName();
    inTab.set("assay-board", this.session);
    this.away = false; // a follower who looks elsewhere
    this.pending = null; // a ballot that is not acknowledged yet
    this.lost = false;
    this.listen();
  }

  close() {
    super.close();
    clearTimeout(this.timer);
    this.closed = true;
  }

  // ---- what comes from the page ----

  update(component) {
    this.component = component;
    const before = this.data;
    this.data = component.data;
    if (!this.data) return;
    this.mode = this.data.mode;
    this.root.dataset.mode = this.mode;
    // A page run that was asked for before the latest press says nothing about where one is now.
    if (!before || (before.slide !== this.data.slide && !this.wished?.slide)) this.slide = this.data.slide;
    if (!before || before.mode !== this.mode) this.away = false;
    this.redrawn = null;
    if (this.wished) {
      delete this.wished.version; // the page has the numbers of now, which may be newer than those that were asked for
      this.settleWish();
    }
    if (!this.state || this.data.state.event >= this.state.event) this.take(this.data.state);
    this.tellScreen();
    if (!before) {
      const { presenter } = this.state;
      if (this.mode === "present" && (!presenter || presenter.mine || presenter.away)) this.act("present", { slide: this.slide });
      this.later(50);
    }
    this.draw();
  }

  // The page sizes figures by the class of the screen: it cannot know it otherwise.
  tellScreen() {
    const width = window.innerWidth;
    const screen = width < 720 ? "phone" : width < 1500 ? "desk" : "projector";
    if (screen !== this.data.screen && screen !== this.told) {
      this.told = screen;
      this.redraw({ screen });
    }
  }

  // Of two wishes in one breath the page may hear the later one only, so each says all that is wished for.
  redraw(wish) {
    this.wished = { ...this.wished, ...wish };
    this.wishedAt = performance.now();
    this.component.setTriggerValue("go", { ...this.wished });
  }

  settleWish() {
    const { slide, mode, screen, version } = this.wished ?? {};
    const there = (!slide || slide === this.data.slide) && (mode === undefined || mode === this.data.mode)
      && (!screen || screen === this.data.screen) && (!version || version === this.data.version);
    if (there) this.wished = null;
    else if (performance.now() - this.wishedAt > WISH_MS) this.redraw({});
  }

  // ---- the server ----

  later(milliseconds) {
    clearTimeout(this.timer);
    if (!this.closed && this.data.token) this.timer = setTimeout(() => this.ask(), milliseconds);
  }

  async ask() {
    if (!this.root.isConnected || this.closed) return;
    if (this.pending && !this.sending) this.send();
    if (this.wished) this.settleWish();
    await this.post("state", {});
    this.later(this.lost ? BROKEN_MS : document.hidden ? HIDDEN_MS : POLL_MS);
  }

  async post(route, more) {
    const body = { token: this.data.token, session: this.session, mode: this.mode, slide: this.slide,
      knows: this.pair ? this.pairOf : null, ...more };
    let answer, found;
    try {
      answer = await fetch(`${this.data.api}/${route}`, { method: "POST", body: JSON.stringify(body),
        headers: { "Content-Type": "application/json" }, signal: AbortSignal.timeout(8000) });
      found = await answer.json();
    } catch {
      this.lost = true;
      this.draw();
      return null;
    }
    this.lost = answer.status >= 500;
    if (found.event !== undefined) this.take(found);
    if (found.error && (route === "do" || answer.status === 401 || answer.status === 403)) this.say("error", found.error);
    else if (found.said) this.say("info", found.said);
    this.draw();
    return answer.ok ? found : answer.status === 409 ? { error: found.error } : null;
  }

  take(state) {
    if (this.state && state.event < this.state.event) return; // an answer that was overtaken
    const news = this.state && state.event > this.state.event && !this.acting;
    this.state = state;
    const vote = state.vote;
    if (vote?.pair) { this.pair = vote.pair; this.pairOf = vote.vote_id; }
    if (vote && this.pairOf !== vote.vote_id) { this.state = { ...state, vote: null }; this.pair = null; }
    if (this.pending && (!vote || vote.phase !== "open" || vote.vote_id !== this.pending.vote_id
        || vote.round !== this.pending.round) && !this.sending) this.pending = null;
    // The presenter's other screen, if there is one, goes along too.
    if (this.mode === "present" && news && state.presenter?.mine && state.slide && state.slide !== this.slide) this.go(state.slide);
    else if (this.mode === "follow" && !this.away && state.presenter && state.slide && state.slide !== this.slide) this.go(state.slide);
    else if (this.slide !== VOTE && state.version && state.version !== this.data.version && state.version !== this.redrawn
        && this.slide === this.data.slide) {
      this.redrawn = state.version;
      this.redraw({ version: state.version });
    }
  }

  // ---- what people do ----

  go(slide) {
    this.slide = slide;
    this.redraw({ slide });
    this.draw();
    (this.root.getRootNode().host ?? this.root).scrollIntoView?.({ block: "start" });
  }

  // A person moves: the presenter takes all along, a follower looks elsewhere.
  move(slide) {
    if (!slide || slide === this.slide) return;
    if (this.mode === "follow" && this.state.presenter) this.away = slide !== this.state.slide;
    this.go(slide);
    if (this.mode === "present" && this.state.presenter?.mine) this.act("show", { slide });
  }

  // Sent one after the other: of two quick presses the later one must win.
  act(action, more = {}) {
    this.clearBanner();
    this.acting = (this.acting ?? 0) + 1;
    this.line = (this.line ?? Promise.resolve()).then(() => this.post("do", { action, ...more })).then((found) => {
      const done = found && !found.error;
      if (done && (action === "open" || action === "again")) this.move(VOTE);
      // A slide that was turned before it was known who presents has not been shown to anybody.
      if (done && action === "present" && this.mode === "present" && this.state.slide !== this.slide) this.act("show", { slide: this.slide });
      this.acting -= 1;
      return found;
    });
    return this.line;
  }

  cast(verdict) {
    const { vote } = this.state;
    this.pending = { vote_id: vote.vote_id, round: vote.round, verdict, press: pressName() };
    this.draw();
    this.send();
  }

  // A ballot whose answer did not come is sent again under the same name: it counts once.
  async send() {
    const ballot = this.pending;
    this.sending = true;
    const found = await this.post("do", { action: "ballot", ...ballot });
    this.sending = false;
    if (found && this.pending === ballot) this.pending = null;
    this.draw();
  }

  async present(takeOver) {
    const found = await this.act("present", { slide: this.slide, take_over: takeOver });
    if (found && !found.error && this.mode !== "present") this.redraw({ mode: "present", slide: this.slide });
  }

  leave() {
    if (this.mode === "present" && this.state.presenter?.mine) this.act("leave");
    if (document.fullscreenElement) document.exitFullscreen();
    this.redraw({ mode: "", slide: this.slide });
  }

  key(event) {
    const key = this.keyForDesk(event);
    const found = KEYS[key];
    const target = event.composedPath()[0];
    const onButton = target instanceof Element && target.closest("button, a, summary");
    if (!found || !this.state || (onButton && key === " ")) return;
    // Outside of a meeting the page scrolls by these keys, as any page; the arrows to the sides still turn slides.
    if (!this.mode && !["arrowright", "arrowleft"].includes(key)) return;
    if (target instanceof Element && target.closest(".text") && ["arrowdown", "arrowup", "pagedown", "pageup", " "].includes(key)) return;
    const keys = this.kinds().map(([name]) => name);
    const at = Math.max(0, keys.indexOf(this.slide));
    event.preventDefault();
    if (found === "next") this.move(keys[Math.min(keys.length - 1, at + 1)]);
    else if (found === "back") this.move(keys[Math.max(0, at - 1)]);
    else if (found === "first") this.move(keys[0]);
    else if (found === "last") this.move(keys.at(-1));
    else if (found === "presenter" && this.away) this.return();
    else if (found === "fullscreen") this.fullscreen();
  }

  return() {
    this.away = false;
    if (this.state.slide) this.go(this.state.slide);
  }

  fullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else document.documentElement.requestFullscreen?.().catch(() => {});
  }

  // ---- drawing ----

  kinds() {
    return [...(this.state?.kinds ?? []), [VOTE, "Vote"]];
  }

  say(kind, text) {
    this.zones.banner.className = `banner ${kind}`;
    this.zones.banner.replaceChildren(text, plainButton("", () => this.clearBanner(), "Close"));
    this.zones.banner.hidden = false;
  }

  clearBanner() {
    this.zones.banner.hidden = true;
  }

  draw() {
    if (!this.state || !this.data) return;
    const { zones } = this;
    const bar = this.barNodes();
    const looks = JSON.stringify(bar.looks);
    if (looks !== this.barLooks) {
      this.barLooks = looks;
      const focused = zones.bar.contains(this.root.getRootNode().activeElement);
      zones.bar.replaceChildren(...bar.nodes());
      if (focused) this.root.focus({ preventScroll: true });
    }
    zones.vote.hidden = this.slide !== VOTE;
    const shown = JSON.stringify([this.slide === VOTE, this.mode, this.state.vote && { ...this.state.vote, pair: null },
      this.state.presenter, this.state.voters, this.pending, this.pairOf]);
    if (this.slide === VOTE && shown !== this.voteLooks) this.drawVote();
    this.voteLooks = shown;
  }

  // While somebody writes the number of a pair, the field must not be taken away.
  drawVote() {
    const active = this.root.getRootNode().activeElement;
    if (active?.tagName === "INPUT" && active.value && this.zones.vote.contains(active)) { this.voteLooks = ""; return; }
    const places = [...this.zones.vote.querySelectorAll(".text")].map((one) => one.scrollTop);
    const chosen = active?.dataset?.verdict;
    this.zones.vote.replaceChildren(...voteView(this));
    [...this.zones.vote.querySelectorAll(".text")].forEach((one, i) => { if (places[i]) one.scrollTop = places[i]; });
    if (chosen) this.zones.vote.querySelector(`[data-verdict="${chosen}"]`)?.focus({ preventScroll: true });
  }

  barNodes() {
    const kinds = this.kinds();
    const at = kinds.findIndex(([key]) => key === this.slide);
    const { presenter, here } = this.state;
    const shown = kinds.find(([key]) => key === this.state.slide)?.[1] ?? "";
    const looks = [kinds, this.slide, this.mode, presenter, here, this.lost, this.away, shown, this.data.me, this.data.token !== ""];
    return { looks, nodes: () => this.mode ? this.meetingBar(kinds, at, presenter, here, shown) : this.pageBar(kinds, presenter, here) };
  }

  pageBar(kinds, presenter, here) {
    const slides = el("div", "slides", ...kinds.map(([key, title]) => {
      const button = plainButton("slide", () => this.move(key), title);
      button.setAttribute("aria-current", String(key === this.slide));
      return button;
    }));
    if (!this.data.token) { // the page asks for a name first
      return [slides, plainButton("", () => this.redraw({ mode: "present" }), "Present"),
        plainButton("", () => this.redraw({ mode: "follow" }), "Follow")];
    }
    const nodes = [slides];
    if (presenter) nodes.push(el("span", "who", el("i", `dot${presenter.away ? " off" : ""}`), 
      `${presenter.mine ? "you" : presenter.name} ${this.presents(presenter)} · ${here} here`));
    const taken = presenter && !presenter.mine && !presenter.away;
    if (this.data.me.reviewer) nodes.push(plainButton("", () => this.askToPresent(presenter), taken ? "Present instead" : "Present"));
    nodes.push(plainButton(presenter && !presenter.mine ? "main" : "", () => this.redraw({ mode: "follow" }), presenter && !presenter.mine ? `Follow ${presenter.name}` : "Follow"));
    return nodes;
  }

  presents({ mine, away }) {
    if (away) return mine ? "left the presentation open" : "is away";
    return mine ? "present on another screen" : "presents";
  }

  askToPresent(presenter) {
    if (!presenter || presenter.mine || presenter.away) { this.present(false); return; }
    this.say("info", `${presenter.name} presents at this moment. `);
    this.zones.banner.append(plainButton("main", () => this.present(true), "Take over"));
  }

  meetingBar(kinds, at, presenter, here, shown) {
    const step = (by, sign, words) => {
      const button = plainButton("", () => this.move(kinds[at + by]?.[0]), sign);
      button.setAttribute("aria-label", words);
      button.disabled = !kinds[at + by];
      return button;
    };
    const nodes = [step(-1, "◀", "Slide before"), el("span", "place", `${at + 1} / ${kinds.length}`), step(1, "▶", "Next slide")];
    const mine = presenter?.mine;
    if (this.mode === "follow" && this.away && presenter) {
      nodes.push(plainButton("main", () => this.return(), `Back to ${presenter.name}: ${shown}`));
    }
    nodes.push(el("span", "push"));
    const off = this.lost || presenter?.away;
    const words = this.lost ? "connection lost, trying again"
      : !presenter ? "nobody presents" : presenter.away ? `${presenter.name} is away` : mine ? "you present" : `${presenter.name} presents`;
    nodes.push(el("span", "who", el("i", `dot${off || !presenter ? " off" : ""}`), `${words} · ${here} here`));
    if (this.mode === "present" && !mine && this.data.me.reviewer) nodes.push(plainButton("main", () => this.present(true), presenter ? "Take over" : "Present"));
    nodes.push(plainButton("", () => this.leave(), this.mode === "present" ? "End" : "Leave"));
    return nodes;
  }
}

export default function (component) {
  return seat(BoardDesk, component);
}
