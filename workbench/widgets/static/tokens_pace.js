// A line of the time between tokens over the stream: at most 60 points, which the kernel sends.

const WIDTH = 90; // px
const HEIGHT = 16; // px

class Pace {
  constructor() {
    this.root = element("span", "wb-tokens-pace", { hidden: "" });
    this.chart = drawn("svg", { width: WIDTH, height: HEIGHT, role: "img" });
    this.line = drawn("polyline", { fill: "none" });
    this.range = element("span", "wb-tokens-value");
    this.chart.append(this.line);
    this.root.append("ITL ", this.chart, " ", this.range);
  }

  draw(points) {
    this.root.hidden = points.length < 2;
    if (this.root.hidden) return;
    const most = Math.max(...points) || 1;
    const x = (place) => ((place / (points.length - 1)) * WIDTH).toFixed(1);
    const y = (point) => (HEIGHT - 1 - (point / most) * (HEIGHT - 2)).toFixed(1);
    this.line.setAttribute("points", points.map((p, i) => `${x(i)},${y(p)}`).join(" "));
    const range = `${Math.min(...points)} to ${Math.max(...points)} ms`;
    setText(this.range, range);
    const words = `Time between tokens over the stream, from 0: ${range}, at the end`;
    this.chart.setAttribute("aria-label", `${words} ${points.at(-1)} ms`);
  }
}

function drawn(tag, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}
