"use strict";
// The list of questions. All that a model wrote goes in as text (textContent), never as markup.
(() => {
  const AT_ONCE = 50;
  const form = document.getElementById("filter");
  const list = document.getElementById("list");
  const more = document.getElementById("more");
  let questions = JSON.parse(document.getElementById("data").textContent);
  let found = [];
  let shown = 0;

  const make = (tag, text, kind) => {
    const element = document.createElement(tag);
    if (text !== undefined && text !== null) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };
  const number = (value) => (value === undefined || value === null ? "" : value.toFixed(2));

  // The attempt that a filter on rounds asks for, or else the last that said something.
  const attempt = (question, round) => {
    if (round) return question.rounds.find((one) => String(one.round) === round);
    const said = question.rounds.filter((one) => one.decision !== "dropped" && one.decision !== "failed");
    return (said.length ? said : question.rounds).at(-1);
  };

  const wanted = () => {
    const text = form.elements.text.value.trim().toLowerCase();
    const decision = form.elements.decision.value;
    const round = form.elements.round.value;
    const rows = [];
    for (const question of questions) {
      const one = attempt(question, round);
      if (!one || (decision ? one.decision !== decision : one.decision === "dropped")) continue;
      if (text && !question.text.toLowerCase().includes(text) && !(one.answer || "").toLowerCase().includes(text)) continue;
      rows.push([question, one]);
    }
    const order = form.elements.order.value;
    const sure = (row) => row[1].confidence ?? (order === "sure" ? -1 : 2);
    if (order === "sure") rows.sort((a, b) => sure(b) - sure(a));
    if (order === "unsure") rows.sort((a, b) => sure(a) - sure(b));
    return rows;
  };

  const table = (heads, rows) => {
    const box = make("div", null, "scroll");
    const made = make("table");
    const top = make("tr");
    heads.forEach((head) => {
      const cell = make("th", head);
      cell.scope = "col";
      top.append(cell);
    });
    made.append(make("thead"));
    made.tHead.append(top);
    const body = make("tbody");
    rows.forEach((row) => {
      const line = make("tr");
      row.forEach((cell) => line.append(make("td", cell, typeof cell === "number" ? "number" : "text")));
      body.append(line);
    });
    made.append(body);
    box.append(made);
    return box;
  };

  const said = (one) => (one ? [one[0] || "(nothing)", one[1], one[2]] : null);

  const round = (one, several) => {
    const parts = [];
    const title = `${several ? `Round ${one.round}: ` : ""}${one.decision}${one.reason ? ` (${one.reason})` : ""}`;
    parts.push(make("h4", title));
    const texts = ["draft", "critique", "revision"].filter((name) => one[name]);
    if (texts.length) {
      const rows = texts.map((name) => [name === one.chosen ? `${name} (taken)` : name, ...said(one[name])]);
      parts.push(table(["", "text", "log-probability", "ended by"], rows));
    }
    if (one.samples) parts.push(make("h4", "Samples"), table(["text", "times"], one.samples));
    if (one.verdicts) {
      const rows = one.verdicts.map(([name, sure, why, of]) => [name, sure ?? "abstains", why, of]);
      parts.push(make("h4", "Verdicts"), table(["detector", "confidence", "why", "of the"], rows));
    }
    if (one.scores) parts.push(make("h4", "As a question"), table(["scorer", "score", "why"], one.scores));
    if (one.lowers) parts.push(make("p", `Lowers: ${one.lowers}`));
    (one.failures || []).forEach((failure) => parts.push(make("p", failure, "text")));
    return parts;
  };

  const open = (details, question) => {
    const inner = make("div", null, "inner");
    inner.append(table(["", ""], Object.entries(question.about)));
    question.rounds.forEach((one) => inner.append(...round(one, question.rounds.length > 1)));
    details.append(inner);
  };

  const row = ([question, one]) => {
    const details = make("details");
    const summary = make("summary");
    summary.append(make("span", one.decision, `badge ${one.decision}`), make("span", number(one.confidence), "number"));
    const asked = make("span", null, "ask");
    asked.append(make("bdi", question.text));
    if (one.answer) asked.append(make("span", " — ", "answer"), make("bdi", one.answer, "answer"));
    summary.append(asked);
    details.append(summary);
    details.addEventListener("toggle", () => details.open && details.childElementCount === 1 && open(details, question));
    return details;
  };

  const grow = () => {
    const next = found.slice(shown, shown + AT_ONCE);
    list.append(...next.map(row));
    shown += next.length;
    more.hidden = shown >= found.length;
  };

  const show = () => {
    found = wanted();
    shown = 0;
    list.replaceChildren();
    document.getElementById("count").textContent = `${found.length.toLocaleString("en")} questions`;
    grow();
  };

  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    const last = list.lastElementChild;
    grow();
    last?.nextElementSibling?.firstElementChild?.focus();
  });
  show();

  // While `selfloop view` serves the page, it says how far the run is; a round that ended brings new figures.
  const header = document.querySelector("header");
  const now = document.getElementById("now");
  const fresh = async () => {
    const answer = await fetch(location.pathname);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    questions = JSON.parse(page.getElementById("data").textContent);
    for (const part of [".tiles", "#glance", "#asked", "#held", "#truth", "#tuning", "#cost", "#made"]) {
      const [before, after] = [document.querySelector(part), page.querySelector(part)];
      if (before && after) before.replaceWith(after);
      else if (after) document.getElementById("cost").before(after);
    }
    form.elements.round.replaceChildren(...page.querySelector("[name=round]").children);
    header.dataset.rounds = page.querySelector("header").dataset.rounds;
    if (!list.querySelector("details[open]")) show();
  };
  const ask = async () => {
    try {
      const state = await (await fetch(header.dataset.live)).json();
      now.textContent = state.text;
      now.hidden = !state.text;
      if (String(state.rounds) !== header.dataset.rounds) await fresh();
    } catch {
      now.textContent = "Nothing more is heard of this run: it was removed, or the server has stopped.";
      now.hidden = false;
    }
    setTimeout(ask, 2000);
  };
  if (header.dataset.live) ask();
})();
