// The sheet: keeps Gradio's Sketchpad ready to draw on, and has it read while the pen moves.
//
// The strokes come from the Sketchpad's own history (window.editor), so undo, redo and the eraser are in them. One call is
// in flight at a time, and none while nobody draws. When the pen rests, the Sketchpad's picture is read too: it has the last
// word. Where the history cannot be reached, that picture is all there is, read after each stroke.
(function (digitnet) {
  "use strict";

  const EVERY = 30; // milliseconds between two readings, at least
  const CALM = 250; // milliseconds without a stroke before steps and history are brought up to date
  const AGAIN = 2000; // milliseconds until a drawing that could not be read is read again
  const SPARING = 12; // pictures of the sheet a second, where the processor has to paint them
  digitnet.SHEET = 280;

  digitnet.startSheet = function ({ element, trigger, server }) {
    let editor = null;
    let brush = null;
    let revision = 0; // counts the states of the sheet
    let busy = false;
    let again = false;
    let checked = -1;
    let calm = 0;
    let pending = false; // something is still to be done once the pen rests
    let replaying = 0; // which replay is the latest: an older one stops
    let playing = false;
    let overlay = null;
    let size = 8;
    const ask = digitnet.asker(server, "tools");
    const sent = new WeakMap(); // a finished stroke → what is sent of it

    const pad = () => document.getElementById("pad");
    const canvas = () => pad()?.querySelector("canvas");
    const visible = () => Boolean(canvas()?.offsetParent);
    const empty = () => strokes().length === 0;

    // --- the Sketchpad -------------------------------------------------------------------------------------------------

    function stroke(segments) {
      const points = [segments[0].from_x, segments[0].from_y];
      for (const { to_x: x, to_y: y } of segments) {
        if (x !== points[points.length - 2] || y !== points[points.length - 1]) points.push(x, y);
      }
      return [segments[0].mode === "erase", segments[0].size, points.map((v) => Math.round(10 * v) / 10)];
    }

    function strokes() {
      const list = [];
      if (!editor) return list;
      for (let step = editor.command_manager.history; step; step = step.previous) {
        const segments = step.command?.stroke_data?.segments;
        if (!segments?.length) continue;
        if (!sent.has(step.command)) sent.set(step.command, stroke(segments));
        list.unshift(sent.get(step.command));
      }
      const now = brush.is_drawing ? brush.brush_textures?.current_stroke_segments : null;
      if (now?.length) list.push(stroke(now));
      return list;
    }

    // Gradio leaves 30 pixels around the sheet, zooms and pans. Here the canvas is the sheet, always.
    function fit() {
      editor.set_image_properties({ scale: 1, position: { x: 0, y: 0 } });
    }

    // Gradio blurs a shadow around its sheet, anew in every frame. Here nothing of it shows, and without a graphics card it takes a
    // third of the frames and of the answers.
    function unblur(node = editor.app.stage) {
      if (node.filters?.length) node.filters = [];
      node.children?.forEach(unblur);
    }

    // Without a graphics card, painting the sheet sixty times a second leaves no time to read it.
    function spare() {
      const gl = editor.app.renderer.gl;
      const info = gl?.getExtension("WEBGL_debug_renderer_info");
      const by = info ? gl.getParameter(info.UNMASKED_RENDERER_WEBGL) : "";
      if (/swiftshader|llvmpipe|software|basic render/i.test(by)) editor.app.ticker.maxFPS = SPARING;
    }

    function holdStill() {
      const zoom = editor.tools.get("zoom");
      const set = editor.set_image_properties.bind(editor);
      editor.set_image_properties = (wanted) => {
        const width = editor.app.screen.width;
        if (wanted.scale === undefined && wanted.position === undefined) return set(wanted);
        return set({ ...wanted, scale: width > 50 ? width / digitnet.SHEET : 1, position: { x: 0, y: 0 }, animate: false });
      };
      zoom.border_padding = 0;
      zoom.image_editor_context.set_image_properties = editor.set_image_properties;
      fit();
    }

    // A fresh Sketchpad has no tool in hand, and a cleared one neither.
    function arm() {
      if (!pad()?.querySelector(".empty")) return;
      const bar = pad().querySelector(".toolbar-wrap");
      (bar?.querySelector("button[aria-label='Brush']") ?? bar?.querySelector("button"))?.click();
      if (editor) brush.set_brush_size(size);
      pressed("draw");
    }

    function attach() {
      const found = window.editor;
      const tool = found?.tools?.get?.("brush");
      if (!canvas() || !tool || !found.command_manager) return false;
      editor = found;
      brush = tool;
      editor.on("change", () => {
        revision += 1;
        pending = true;
        setTimeout(changed, 0); // the history holds the stroke after this task
      });
      overlay = digitnet.make("div", { class: "overlay", "aria-hidden": "true" });
      pad().querySelector(".pixi-target").append(overlay);
      const hint = digitnet.make("p", { class: "pad-hint", "aria-hidden": "true" }, "Draw here");
      pad().querySelector(".pixi-target").append(hint);
      pad().querySelector(".image-container").removeAttribute("aria-label"); // "Click to upload": not here
      pad().querySelector(".image-container").removeAttribute("aria-dropeffect");
      canvas().setAttribute("role", "img");
      canvas().setAttribute("aria-label", "Sheet to draw on with mouse, pen or finger");
      holdStill();
      unblur();
      spare();
      arm();
      return true;
    }

    // Second fingers neither draw nor zoom, and the wheel scrolls the page, not the sheet.
    function guard() {
      const stop = (event) => event.stopImmediatePropagation();
      const box = pad();
      box.addEventListener("wheel", stop, { capture: true });
      for (const type of ["pointerdown", "pointermove", "pointerup"]) {
        box.addEventListener(type, (event) => event.isPrimary || stop(event), { capture: true });
      }
      box.addEventListener("pointerdown", (event) => {
        if (event.isTrusted) replaying += 1; // a hand on the sheet ends the replay
      }, { capture: true });
      // The Sketchpad hears fingers as touches: those of a second one, and any while it is down, are kept from it.
      for (const type of ["touchstart", "touchmove"]) {
        box.addEventListener(type, (event) => event.touches.length > 1 && stop(event), { capture: true });
      }
      for (const type of ["touchend", "touchcancel"]) {
        box.addEventListener(type, (event) => event.touches.length > 0 && stop(event), { capture: true });
      }
      box.addEventListener("dragover", stop, { capture: true });
      box.addEventListener("drop", stop, { capture: true });
    }

    // --- reading -------------------------------------------------------------------------------------------------------

    function moved() {
      if (brush?.is_drawing) {
        pad().dataset.inked = "yes";
        send();
      }
    }

    function changed() {
      const history = editor.command_manager.history;
      element.querySelector("[data-do='undo']").disabled = !history.previous;
      element.querySelector("[data-do='redo']").disabled = !history.next;
      if (empty()) delete pad().dataset.inked;
      else pad().dataset.inked = "yes";
      send();
      rest();
    }

    function rest() {
      pending = true;
      clearTimeout(calm);
      calm = setTimeout(settle, CALM);
    }

    async function send() {
      if (busy) {
        again = true;
        return;
      }
      busy = true;
      do {
        again = false;
        const state = revision;
        const drawing = brush.is_drawing;
        const now = strokes();
        const begin = performance.now();
        let reading = digitnet.BLANK;
        if (now.length) reading = await ask("read_sheet", now, { live: drawing });
        if (reading.late) {
          again = true; // the server is busy: fewer answers on the way, and the last one for certain
          continue;
        }
        if (drawing || state === revision) digitnet.show(reading, { settled: !drawing && !brush.is_drawing, trigger });
        if (reading.again && state === revision) setTimeout(() => state === revision && !brush.is_drawing && send(), AGAIN);
        if (!drawing && state === revision && reading.label) digitnet.visit?.note(reading, now);
        const rest = EVERY - (performance.now() - begin);
        if (again && rest > 0 && brush.is_drawing) await new Promise((done) => setTimeout(done, rest));
      } while (again);
      busy = false;
    }

    // What is worth showing only when the pen rests.
    async function settle() {
      if (brush.is_drawing) return; // the end of the stroke asks again
      if (busy) {
        rest();
        return;
      }
      const state = revision;
      const open = (id) => document.getElementById(id)?.open;
      if (!empty()) {
        if (open("steps-panel")) {
          const reading = await ask("sheet_steps", strokes());
          if (state === revision) digitnet.showSteps(reading);
        }
        if (open("why-panel") && state === revision) await digitnet.askWhy();
        if (state === revision && checked !== revision) await check();
      }
      if (state === revision) pending = false;
    }

    // The picture on the sheet, read as well: should its answer differ from that of the strokes, it replaces it.
    async function check() {
      const state = revision;
      const { composite } = await editor.get_blobs();
      if (!composite || state !== revision) return;
      const png = await new Promise((done) => {
        const reader = new FileReader();
        reader.onload = () => done(reader.result.split(",")[1]);
        reader.readAsDataURL(composite);
      });
      const reading = await ask("sheet_picture", png);
      if (reading.error || state !== revision || brush.is_drawing || busy) return;
      checked = revision;
      const answer = document.getElementById("answer");
      answer.dataset.checked = Number(answer.dataset.checked ?? 0) + 1;
      const text = (r) => r.label?.label ?? "";
      if (text(reading) === text(digitnet.shown())) return;
      answer.dataset.replaced = Number(answer.dataset.replaced ?? 0) + 1;
      digitnet.show(reading, { settled: true, trigger });
    }

    digitnet.askWhy = async function (against = null) {
      const now = strokes();
      digitnet.showWhy(now.length ? await ask("sheet_why", { strokes: now, against }) : null);
    };

    // Without the Sketchpad's history: its picture goes to Python by Gradio's own way and comes back here.
    digitnet.pictureRead = (json) => json && digitnet.show(JSON.parse(json), { settled: true, trigger });
    const readPicture = () => setTimeout(() => document.getElementById("read-picture")?.click(), 60);

    // Nothing drawn, asked or about to be looked at again: the page rests.
    digitnet.idle = () => Boolean(editor) && !brush.is_drawing && !busy && !pending;
    digitnet.strokes = strokes;
    digitnet.replaying = () => playing;
    digitnet.overlay = () => overlay;
    digitnet.keep = (row) => (server.keep_drawing ? ask("keep_drawing", row) : undefined);

    digitnet.predict = function () {
      if (!editor) {
        readPicture();
        return;
      }
      revision += 1;
      send();
      rest();
    };

    // --- tools ---------------------------------------------------------------------------------------------------------

    function pressed(tool) {
      element.querySelectorAll("[data-tool]").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.tool === tool)));
    }

    function take(tool) {
      const names = { draw: "Brush", erase: "Erase" };
      const bar = pad().querySelector(".toolbar-wrap");
      const button = bar.querySelector(`button[aria-label='${names[tool]}']`) ?? bar.querySelectorAll("button")[tool === "draw" ? 0 : 1];
      button?.click();
      pressed(tool);
    }

    digitnet.clear = function () {
      replaying += 1;
      const buttons = pad().querySelectorAll(".icon-button-wrapper button");
      (pad().querySelector("button[aria-label='Clear canvas']") ?? buttons[buttons.length - 1])?.click();
      revision += 1;
      digitnet.visit?.next();
      digitnet.show(digitnet.BLANK, { settled: true, trigger });
      requestAnimationFrame(arm);
      if (editor) rest();
    };

    const actions = {
      undo: () => editor?.command_manager.history.previous && editor.undo(),
      redo: () => editor?.command_manager.history.next && editor.redo(),
    };

    element.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button || !editor) return;
      const { tool, size: radius, do: action } = button.dataset;
      if (tool) take(tool);
      if (action) actions[action]();
      if (radius) {
        size = Number(radius);
        brush.set_brush_size(size);
        take("draw");
        element.querySelectorAll("[data-size]").forEach((b) => b.setAttribute("aria-pressed", String(b === button)));
      }
    });

    document.addEventListener("keydown", (event) => {
      if (!visible() || event.target.closest?.("input, textarea, select, [contenteditable='true']")) return;
      const command = event.ctrlKey || event.metaKey;
      const key = event.key.toLowerCase();
      let action = null;
      if (command && key === "z") action = event.shiftKey ? actions.redo : actions.undo;
      else if (command && key === "y") action = actions.redo;
      else if (!command && (key === "escape" || key === "delete")) action = digitnet.clear;
      if (!action) return;
      event.preventDefault();
      action();
    });

    // Draws strokes on the sheet as a hand would, so that an example takes the same way as a visitor's drawing.
    digitnet.replay = async function (lines) {
      digitnet.clear();
      const mine = replaying;
      playing = true;
      await play(lines, mine);
      if (mine === replaying) playing = false;
    };

    async function play(lines, mine) {
      await new Promise((done) => setTimeout(done, 60));
      arm();
      take("draw");
      await new Promise((done) => setTimeout(done, 30));
      const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
      const total = lines.reduce((sum, line) => sum + line.length, 0);
      const pause = still ? 0 : Math.max(4, Math.min(16, 900 / total));
      for (const line of lines) {
        for (let i = 0; i <= line.length; i += 1) {
          if (mine !== replaying) return;
          const rect = canvas().getBoundingClientRect();
          const [x, y] = line[Math.min(i, line.length - 1)];
          const at = {
            bubbles: true, cancelable: true, composed: true, pointerId: 1, pointerType: "mouse", isPrimary: true,
            clientX: rect.left + (x * rect.width) / digitnet.SHEET, clientY: rect.top + (y * rect.height) / digitnet.SHEET,
          };
          const down = i > 0 && i < line.length;
          canvas().dispatchEvent(new PointerEvent("pointermove", { ...at, button: -1, buttons: down ? 1 : 0 }));
          if (i === 0) canvas().dispatchEvent(new PointerEvent("pointerdown", { ...at, button: 0, buttons: 1 }));
          if (i === line.length) canvas().dispatchEvent(new PointerEvent("pointerup", { ...at, button: 0, buttons: 0 }));
          if (pause) await new Promise((done) => setTimeout(done, pause));
        }
      }
    }

    document.addEventListener("click", (event) => {
      const example = event.target.closest?.(".example");
      if (example) digitnet.replay(JSON.parse(example.dataset.strokes));
    });
    // "toggle" does not bubble, but it can be caught on the way down.
    document.addEventListener("toggle", (event) => {
      if (!editor || !event.target.open) return;
      if (event.target.id === "bars-panel") digitnet.showBars();
      if (event.target.id === "steps-panel" || event.target.id === "why-panel") rest();
    }, true);
    for (const type of ["pointerdown", "pointermove"]) window.addEventListener(type, moved);
    document.addEventListener("pointerup", (event) => {
      if (!editor && event.target.closest?.("#pad")) readPicture();
    });

    // --- start ---------------------------------------------------------------------------------------------------------

    document.getElementById("answer")?.setAttribute("data-answers", "0");
    let guarded = false;
    const start = setInterval(() => {
      if (pad() && !guarded) {
        guarded = true;
        guard();
        new MutationObserver(arm).observe(pad(), { childList: true, subtree: true });
      }
      if (attach()) clearInterval(start);
      else arm();
    }, 30);
  };
})((window.digitnet ??= {}));
