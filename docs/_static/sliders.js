// Two pictures of the page "Cross-entropy from the ground up" that follow a slider.
// Without this script the page shows them as they are at the sliders' first values.
(() => {
  "use strict";

  const parts = (figure, name) => [
    ...figure.querySelectorAll(`[data-part="${name}"]`),
  ];

  const set = (element, attributes) => {
    for (const [name, value] of Object.entries(attributes)) {
      element.setAttribute(name, value.toFixed(1));
    }
  };

  const number = (x, digits = 3) => {
    const text = x.toFixed(digits);
    return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
  };

  const write = (figure, name, numbers, digits) =>
    parts(figure, name).forEach((element, i) => {
      element.textContent = number(numbers[i], digits);
    });

  // x log x, which is 0 at 0.
  const xLogX = (x) => (x === 0 ? 0 : x * Math.log(x));

  // Softmax of three logits, the loss and its gradient; the label is class 0.
  const softmax = (figure, input) => {
    const z = figure.dataset.logits.split(" ").map(Number);
    z[0] = input.valueAsNumber;
    const largest = Math.max(...z);
    const powers = z.map((x) => Math.exp(x - largest));
    const sum = powers.reduce((a, b) => a + b);
    const p = powers.map((x) => x / sum);
    const gradient = p.map((x, c) => x - (c === 0 ? 1 : 0));
    const loss = largest + Math.log(sum) - z[0];

    const base = 170;
    const height = 140;
    parts(figure, "bar").forEach((bar, c) =>
      set(bar, { y: base - height * p[c], height: height * p[c] }),
    );
    parts(figure, "arrow").forEach((arrow, c) => {
      set(arrow, { y1: base - height * p[c] });
      arrow.style.visibility = Math.abs(gradient[c]) < 0.02 ? "hidden" : "visible";
    });
    write(figure, "z", z, 1);
    write(figure, "p", p);
    write(figure, "gradient", gradient);
    write(figure, "loss", [loss]);
    return `${number(z[0], 1)}, loss ${number(loss)} nats`;
  };

  // Entropy of a coin, and the cross-entropy of one who believes something else.
  const coin = (figure, input) => {
    const q = Number(figure.dataset.belief);
    const p = input.valueAsNumber;
    const entropy = -xLogX(p) - xLogX(1 - p);
    const cross = -p * Math.log(q) - (1 - p) * Math.log(1 - q);

    const x = 40 + 290 * p;
    const y = (nats) => 190 - 100 * nats;
    for (const gap of parts(figure, "gap")) {
      set(gap, { x1: x, x2: x, y1: y(entropy), y2: y(cross) });
    }
    for (const dot of parts(figure, "entropy-dot")) set(dot, { cx: x, cy: y(entropy) });
    for (const dot of parts(figure, "cross-dot")) set(dot, { cx: x, cy: y(cross) });
    write(figure, "p", [p], 2);
    write(figure, "entropy", [entropy]);
    write(figure, "cross", [cross]);
    write(figure, "kl", [cross - entropy]);
    return `${number(p, 2)}, cross-entropy ${number(cross)} nats`;
  };

  const draw = { softmax, coin };
  for (const figure of document.querySelectorAll("figure[data-slider]")) {
    const input = figure.querySelector("input");
    const update = () => {
      const text = draw[figure.dataset.slider](figure, input);
      input.setAttribute("aria-valuetext", text);
    };
    input.disabled = false;
    input.addEventListener("input", update);
    update(); // a browser may have kept the value of the last visit
  }
})();
