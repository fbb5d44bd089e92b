// Shows what was found in a photo: the number, the photo with a box around each digit, and each digit as the network saw it.
const { make, field, percent } = window.digitnet;
const panel = element.querySelector(".photo-result");
const first = panel.innerHTML;

function box({ box: [left, top, right, bottom], digit, confidence, doubt }, [width, height]) {
  const frame = make("div", { class: doubt ? "box doubt" : "box" }, make("span", {}, `${digit} · ${percent(confidence)}`));
  Object.assign(frame.style, {
    left: `${(100 * left) / width}%`, top: `${(100 * top) / height}%`,
    width: `${(100 * (right - left)) / width}%`, height: `${(100 * (bottom - top)) / height}%`,
  });
  return frame;
}

watch("value", () => {
  if (!props.value) {
    panel.innerHTML = first;
    return;
  }
  const reading = JSON.parse(props.value);
  const verdict = reading.error ? "error" : reading.verdict;
  const parts = [make("p", { class: "say", role: "status", "data-verdict": verdict }, reading.error ?? reading.say)];
  if (reading.label) parts.unshift(make("p", { class: "photo-number" }, reading.label.label));
  if (reading.photo) {
    const boxes = make("div", { class: "overlay" }, ...reading.boxes.map((one) => box(one, reading.size)));
    const alt = reading.label ? `Your photo, read as ${reading.label.label}` : "Your photo";
    parts.push(make("div", { class: "photo-shown" }, make("img", { src: `data:image/jpeg;base64,${reading.photo}`, alt }), boxes));
    parts.push(make("ul", { class: "photo-digits" }, ...reading.boxes.map((one) =>
      make("li", { class: one.doubt ? "doubt" : "" }, field(one.seen, `As the network saw it: ${one.digit}`),
        make("strong", {}, String(one.digit)), percent(one.confidence)))));
  }
  panel.replaceChildren(...parts);
});
