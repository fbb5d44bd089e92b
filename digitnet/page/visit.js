// This visit: the readings so far, kept in this browser only, corrected by a click and downloaded as CSV or strokes.
(function (digitnet) {
  "use strict";

  const KEY = "digitnet-visit";
  const MOST = 500;
  const make = (...parts) => digitnet.make(...parts);
  let rows = [];
  let current = null;
  let table = null;
  let collects = false;
  let writer = "visitor";

  function load() {
    try {
      const kept = JSON.parse(sessionStorage.getItem(KEY) ?? "{}");
      rows = Array.isArray(kept.rows) ? kept.rows : [];
      writer = kept.writer ?? `visitor-${Math.random().toString(36).slice(2, 10)}`;
    } catch {
      rows = []; // private windows may forbid storage: then the visit lasts as long as the page is open
    }
  }

  function save() {
    try {
      sessionStorage.setItem(KEY, JSON.stringify({ rows, writer }));
    } catch {
      // full, or forbidden
    }
  }

  // The drawing's strokes without what the eraser took: a stroke file knows no eraser.
  const plain = (strokes) => (strokes.some(([erases]) => erases) ? null : strokes.map(([, , flat]) => flat));

  function note(reading, strokes) {
    const row = current ?? { id: Date.now(), at: new Date().toISOString() };
    Object.assign(row, {
      text: reading.number?.text ?? String(reading.digit),
      confidence: reading.confidence,
      verdict: reading.verdict,
      p_digit: reading.p_digit ?? null,
      seen: reading.thumb,
      strokes: plain(strokes),
      boxes: reading.number ? reading.boxes.map(({ box, digit }) => ({ box, digit })) : null,
      truth: null,
    });
    if (!current) {
      rows.unshift(row);
      rows.length = Math.min(rows.length, MOST);
      current = row;
    }
    save();
    draw();
  }

  function correct(row, truth) {
    row.truth = truth;
    save();
    draw();
    if (collects && truth !== null) drawings(row).forEach((drawing) => digitnet.keep(drawing));
  }

  // One line of a stroke file for each digit of the row. A number's strokes are dealt out to its boxes; one that runs
  // through two boxes belongs to neither, and then the number is left out.
  function drawings(row) {
    if (!row.strokes) return [];
    const points = (flat) => flat.reduce((list, v, i) => (i % 2 ? list[list.length - 1].push(v) : list.push([v]), list), []);
    const lines = row.strokes.map(points);
    const label = row.truth ?? row.text;
    if (!row.boxes) return [{ label: /^\d$/.test(label) ? Number(label) : label, writer, strokes: lines }];
    if (!/^\d+$/.test(label) || label.length !== row.boxes.length) return [];
    const groups = row.boxes.map(() => []);
    for (const line of lines) {
      const inside = row.boxes.map(({ box: [left, , right] }) => line.filter(([x]) => x >= left - 2 && x <= right + 2).length);
      const best = inside.indexOf(Math.max(...inside));
      if (inside[best] < 0.9 * line.length) return [];
      groups[best].push(line);
    }
    if (groups.some((group) => !group.length)) return [];
    return groups.map((strokes, i) => ({ label: Number(label[i]), writer, strokes }));
  }

  const quoted = (value) => `"${String(value ?? "").replaceAll('"', '""')}"`;

  function csv() {
    const head = "time,read,confidence,verdict,p_digit,correct_answer";
    const lines = rows.map((r) => [r.at, r.text, r.confidence?.toFixed(4), r.verdict, r.p_digit?.toFixed(4), r.truth].map(quoted).join(","));
    return [head, ...lines].join("\r\n") + "\r\n";
  }

  // Only what somebody has confirmed or corrected is worth training on.
  const strokeFile = () => rows.filter((r) => r.truth !== null).flatMap(drawings).map((d) => JSON.stringify(d) + "\n").join("");

  function download(name, type, text) {
    const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  function draw() {
    if (!table) return;
    const checked = rows.filter((r) => r.truth !== null);
    const right = checked.filter((r) => r.truth === r.text).length;
    table.querySelector(".summary").textContent = rows.length
      ? `${rows.length} ${rows.length === 1 ? "reading" : "readings"}` + (checked.length ? `, ${right} of ${checked.length} checked ones right.` : ". Say which were right: that makes them worth training on.")
      : "Nothing has been read yet. Draw on the first tab, then come back.";
    table.querySelectorAll("[data-file]").forEach((button) => {
      button.disabled = button.dataset.file === "strokes" ? !strokeFile() : !rows.length;
    });
    table.querySelector("[data-forget]").disabled = !rows.length;
    table.querySelector("table").hidden = !rows.length;
    table.querySelector("tbody").replaceChildren(...rows.map(line));
  }

  function line(row) {
    const number = row.boxes !== null;
    const select = make("select", { "aria-label": `What ${row.text} really was` },
      make("option", { value: "" }, "It was …"),
      ...(number ? [] : [...Array(10).keys()].map((d) => make("option", { value: d }, `a ${d}`))),
      ...(number ? [make("option", { value: "other" }, "another number …")] : []),
      make("option", { value: "not a digit" }, "no digit"));
    select.addEventListener("change", () => {
      let truth = select.value;
      if (truth === "other") truth = (window.prompt("Which number was it?", row.text) ?? "").replace(/\D/g, "");
      if (truth) correct(row, truth);
    });
    const yes = make("button", { type: "button", class: "small", "aria-pressed": String(row.truth === row.text) }, "Right");
    yes.addEventListener("click", () => correct(row, row.truth === row.text ? null : row.text));
    const state = row.truth === null ? "" : row.truth === row.text ? "right" : `it was ${row.truth}`;
    return make("tr", { "data-state": row.truth === null ? "open" : row.truth === row.text ? "right" : "wrong" },
      make("td", {}, digitnet.field(row.seen, `Drawing read as ${row.text}`)),
      make("td", { class: "read" }, row.text),
      make("td", {}, digitnet.percent(row.confidence)),
      make("td", { class: "said" }, state || { digit: "sure", unsure: "unsure", not_a_digit: "not a digit" }[row.verdict] || row.verdict),
      make("td", { class: "fix" }, yes, select));
  }

  digitnet.visit = {
    note,
    drawings,
    next() {
      current = null;
    },
    open(element) {
      table = element.querySelector(".visit");
      collects = table.dataset.collects === "yes";
      table.addEventListener("click", (event) => {
        const { file, forget } = event.target.closest("button")?.dataset ?? {};
        if (file === "csv") download("digitnet-readings.csv", "text/csv", csv());
        if (file === "strokes") download("digitnet-drawings.jsonl", "application/jsonl", strokeFile());
        if (forget !== undefined) {
          rows = [];
          current = null;
          save();
          draw();
        }
      });
      draw();
    },
    set collects(value) {
      collects = value;
    },
  };
  load();
})((window.digitnet ??= {}));
