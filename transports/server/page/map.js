/** Where the rover is, where it has been and where it looks: a picture, and the same in words. */

const WIDTH = 320;
const HEIGHT = 200;
const MARGIN = 28;
const SMALLEST_M = 8; // what the map shows at least
const TOLD = 10; // stops of its way, in words
const ANGLES = { north: 0, east: 90, south: 180, west: 270 };

export class RoverMap {
  #section;
  #picture;
  #text;
  #way;
  #angle = 0; // goes on beyond 360, so that the rover turns the short way
  #rover = null;
  #still = null;

  constructor({ section, picture, text, way }) {
    this.#section = section;
    this.#picture = picture;
    this.#text = text;
    this.#way = way;
  }

  /** `position` and `path` in metres, east and north of the start. */
  show({ position, heading, path }) {
    const first = this.#rover === null;
    if (first) this.#prepare();
    this.#section.hidden = false;
    const points = [[0, 0], ...path, position];
    const { scale, place } = view(points);
    this.#still.replaceChildren(
      ...grid(scale, place),
      shape("polyline", { class: "path", points: path.map((point) => place(point).join(",")).join(" ") }),
      ...path.map((point) => circle(place(point), 2.5, "stop")),
      circle(place([0, 0]), 5, "start"),
      ...ruler(scale),
    );
    const turn = ((((ANGLES[heading] ?? 0) - this.#angle) % 360) + 540) % 360 - 180;
    this.#angle += turn;
    const [x, y] = place(position);
    this.#rover.style.transform = `translate(${x}px, ${y}px) rotate(${this.#angle}deg)`;
    this.#text.textContent = sentence(`${away(position)}; facing ${heading}`);
    this.#way.textContent = path.length > 1 ? sentence(`its way: ${path.slice(-TOLD).map(away).join("; then ")}`) : "";
  }

  #prepare() {
    this.#still = shape("g");
    this.#rover = shape("g", { class: "rover" });
    this.#rover.append(shape("path", { d: "M0,-11 L8,9 L0,4.5 L-8,9 Z" }));
    const north = shape("g", { class: "compass" });
    north.append(shape("path", { d: `M${WIDTH - 14},30 v-18 m-4,5 l4,-5 l4,5` }), label("N", WIDTH - 14, 42, "middle"));
    this.#picture.replaceChildren(this.#still, north, this.#rover);
  }
}

/** How the world lies in the picture: px to a metre, and where a point is. */
function view(points) {
  const [east, north] = [0, 1].map((axis) => points.map((point) => point[axis]));
  const span = (values) => Math.max(SMALLEST_M, Math.max(...values) - Math.min(...values));
  const middle = (values) => (Math.max(...values) + Math.min(...values)) / 2;
  const scale = Math.min((WIDTH - 2 * MARGIN) / span(east), (HEIGHT - 2 * MARGIN) / span(north));
  const [e, n] = [middle(east), middle(north)];
  const place = (point) => [WIDTH / 2 + (point[0] - e) * scale, HEIGHT / 2 - (point[1] - n) * scale];
  return { scale, place };
}

/** 1, 2 or 5 times a power of ten metres, at least 36 px wide. */
function step(scale) {
  const power = 10 ** Math.floor(Math.log10(36 / scale));
  return power * [1, 2, 5, 10].find((times) => times * power * scale >= 36);
}

function grid(scale, place) {
  const metres = step(scale);
  const [x0, y0] = place([0, 0]);
  const px = metres * scale;
  const lines = [];
  for (let x = ((x0 % px) + px) % px; x < WIDTH; x += px) lines.push(`M${x.toFixed(1)},0 V${HEIGHT}`);
  for (let y = ((y0 % px) + px) % px; y < HEIGHT; y += px) lines.push(`M0,${y.toFixed(1)} H${WIDTH}`);
  return [shape("path", { class: "grid", d: lines.join(" ") })];
}

function ruler(scale) {
  const metres = step(scale);
  const end = 10 + metres * scale;
  return [
    shape("path", { class: "ruler", d: `M10,${HEIGHT - 14} v4 H${end.toFixed(1)} v-4` }),
    label(`${metres} m`, end + 6, HEIGHT - 8),
  ];
}

function circle([cx, cy], r, name) {
  return shape("circle", { cx, cy, r, class: name });
}

function label(text, x, y, anchor = "start") {
  const element = shape("text", { x, y, "text-anchor": anchor });
  element.textContent = text;
  return element;
}

function shape(name, attributes = {}) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

const away = ([east, north]) =>
  [
    north && `${Math.abs(north)} m ${north > 0 ? "north" : "south"}`,
    east && `${Math.abs(east)} m ${east > 0 ? "east" : "west"}`,
  ]
    .filter(Boolean)
    .join(", ") || "at its start";

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;
