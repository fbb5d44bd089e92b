// Shows a Reading: the label, the sentence, the boxes on the sheet, what the network saw, bars, steps and the why-map.
// Asks the server for nothing: sheet.js does, and hands over what comes back.
(function (digitnet) {
  "use strict";

  const SIDE = 28;
  const BLANK = { verdict: "blank", say: "The sheet is blank. Draw a digit, or a number like 2026.", label: null };
  let shown = BLANK;
  let answers = 0;

  const byId = (id) => document.getElementById(id);
  const percent = (p) => (p >= 0.9995 ? "100\u00a0%" : p < 0.001 ? "0\u00a0%" : `${(100 * p).toFixed(p > 0.99 ? 1 : 0)}\u00a0%`);

  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined) node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  }

  const bytes = (packed) => Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));

  // 28×28 bytes as a picture whose pixels can be counted. colour: byte → [red, green, blue].
  function field(packed, alt, colour = (v) => [v, v, v]) {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(SIDE, SIDE);
    bytes(packed).forEach((v, i) => pixels.data.set([...colour(v, i), 255], 4 * i));
    context.putImageData(pixels, 0, 0);
    return make("img", { class: "field", src: canvas.toDataURL(), alt, width: SIDE, height: SIDE });
  }

  function showSentence(reading, settled) {
    const say = byId("say");
    if (!say) return;
    say.textContent = reading.say;
    say.dataset.verdict = reading.error ? "error" : reading.verdict;
    // Screen readers hear settled answers only, not every one on the way.
    if (settled && byId("said").textContent !== reading.say) byId("said").textContent = reading.say;
  }

  function showSeen(reading) {
    const seen = byId("seen");
    if (!seen) return;
    const pictures = (reading.seen ?? []).map((packed, i, all) =>
      field(packed, all.length > 1 ? `Digit ${i + 1} as the network saw it` : "The 28×28 picture the network saw"));
    seen.dataset.count = pictures.length;
    seen.replaceChildren(...(pictures.length ? pictures : [make("div", { class: "field empty", role: "img", "aria-label": "Nothing yet" })]));
    byId("fact-digit").textContent = reading.p_digit === undefined || reading.number ? "–" : percent(reading.p_digit);
    byId("fact-ms").textContent = reading.ms === undefined ? "–" : `${reading.ms.toFixed(reading.ms < 10 ? 1 : 0)} ms`;
  }

  function showBars(reading) {
    const bars = byId("bars");
    if (!bars || !byId("bars-panel").open) return;
    const p = reading.probabilities ?? Array(10).fill(0);
    if (bars.children.length !== 10) {
      bars.replaceChildren(...p.map((_, digit) =>
        make("div", { class: "bar-row" }, make("b", {}, String(digit)), make("span", { class: "track" }, make("i")), make("em"))));
    }
    const best = reading.probabilities ? p.indexOf(Math.max(...p)) : -1;
    [...bars.children].forEach((row, digit) => {
      row.classList.toggle("best", digit === best);
      row.querySelector("i").style.width = `${100 * p[digit]}%`;
      row.querySelector("em").textContent = reading.probabilities ? percent(p[digit]) : "";
    });
    bars.dataset.note = reading.number ? `Digit ${reading.probabilities_of + 1}, the least sure one` : "";
  }

  function showBoxes(reading) {
    const layer = digitnet.overlay?.();
    if (!layer) return;
    layer.replaceChildren(...(reading.number ? reading.boxes : []).map(({ box: [left, top, right, bottom], digit, confidence, doubt }) => {
      const box = make("div", { class: doubt ? "box doubt" : "box" }, make("span", {}, `${digit} · ${percent(confidence)}`));
      const share = (v) => `${(100 * v) / digitnet.SHEET}%`;
      Object.assign(box.style, { left: share(left), top: share(top), width: share(right - left), height: share(bottom - top) });
      return box;
    }));
  }

  function showSteps(reading) {
    const panel = byId("steps");
    if (!panel) return;
    const steps = reading.steps;
    if (!steps) {
      panel.replaceChildren(make("p", { class: "hint" }, "Draw something first."));
      return;
    }
    const [left, top, right, bottom] = steps.box;
    const [width, height] = steps.size;
    const crop = make("span", { class: "crop" });
    Object.assign(crop.style, {
      left: `${(100 * left) / width}%`, top: `${(100 * top) / height}%`,
      width: `${(100 * (right - left)) / width}%`, height: `${(100 * (bottom - top)) / height}%`,
    });
    const sheet = make("span", { class: "thumb" }, make("img", { src: `data:image/png;base64,${steps.sheet}`, alt: "Your drawing" }), crop);
    const stage = (caption, picture) => make("figure", {}, picture, make("figcaption", {}, caption));
    const path = make("div", { class: "path" },
      stage(steps.which ? `Found: ${steps.which}` : "Your drawing, cropped to the ink", sheet),
      stage("Scaled, centred: 28×28", field(steps.seen, "The 28×28 picture the network saw")));
    const majority = steps.views.map((view) => view.digit);
    const winner = majority.sort((a, b) => majority.filter((d) => d === a).length - majority.filter((d) => d === b).length).pop();
    const views = make("ul", { class: "views" }, ...steps.views.map((view) =>
      make("li", { class: view.digit === winner ? "vote" : "vote other" },
        field(view.seen, ""), make("strong", {}, String(view.digit)), make("span", {}, `${view.name}, ${percent(view.confidence)}`))));
    panel.replaceChildren(path, make("p", { class: "votes" }, steps.say), views);
  }

  function showWhy(why) {
    const panel = byId("why");
    if (!panel) return;
    if (!why?.weights) {
      panel.replaceChildren(make("p", { class: "hint" }, why?.error ?? why?.say ?? "Draw something first."));
      return;
    }
    const seen = bytes(why.seen);
    // Blue speaks for the answer, orange for the other: a pair that colour-blind people tell apart.
    const colour = (v, i) => {
      const weight = (v - 128) / 127;
      const ground = 255 - 0.45 * seen[i];
      const strength = Math.min(1, Math.abs(weight) * 1.2);
      const target = weight > 0 ? [38, 70, 214] : [222, 110, 0];
      return target.map((c) => Math.round(ground * (1 - strength) + c * strength));
    };
    const select = make("select", { id: "why-against", "aria-label": "Compare with" },
      ...[...Array(10).keys()].filter((d) => d !== why.digit).map((d) => {
        const option = make("option", { value: d }, String(d));
        option.selected = d === why.against;
        return option;
      }));
    select.addEventListener("change", () => digitnet.askWhy(Number(select.value)));
    panel.replaceChildren(
      make("div", { class: "why-row" },
        field(why.weights, `Map of what speaks for ${why.digit} and what for ${why.against}`, colour),
        make("div", {},
          make("p", { class: "why-question" }, `Why ${why.digit} and not `, select, "?"),
          make("p", { class: "key" }, make("i", { class: "for" }), `speaks for ${why.digit}`),
          make("p", { class: "key" }, make("i", { class: "against" }), `speaks for ${why.against}`),
          make("p", { class: "hint" }, "Each spot was blotted out, or inked in, to see which way the answer leans."))));
  }

  // The answer counts as shown once the label on the screen says it.
  function countWhenShown(reading, tries = 0) {
    if (shown !== reading) return;
    const label = document.querySelector("#answer [data-testid='label-output-value']");
    if (label && label.textContent.trim() === reading.label.label) {
      answers += 1;
      byId("answer").dataset.answers = answers;
    } else if (tries < 100) {
      setTimeout(() => countWhenShown(reading, tries + 1), tries < 10 ? 0 : 10);
    }
  }

  // reading: as reading.py makes it; settled: false while the pen is down; trigger: the component's, reaches the Label.
  digitnet.show = function (reading, { settled, trigger }) {
    shown = reading.error ? { ...BLANK, ...reading, say: reading.error } : reading;
    const answer = byId("answer");
    answer.dataset.answers ??= "0";
    trigger();
    if (shown.label) countWhenShown(shown);
    showSentence(shown, settled);
    showSeen(shown);
    showBars(shown);
    showBoxes(shown);
    if (shown.steps || !shown.label) showSteps(shown);
    if (!shown.label) showWhy(null);
  };

  digitnet.label = () => shown.label ?? {};
  digitnet.shown = () => shown;
  digitnet.showBars = () => showBars(shown);
  digitnet.showSteps = showSteps;
  digitnet.showWhy = showWhy;
  digitnet.BLANK = BLANK;
  digitnet.make = make;
  digitnet.field = field;
  digitnet.percent = percent;
})((window.digitnet ??= {}));
