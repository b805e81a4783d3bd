// Map symbols drawn on demand: every sector has a silhouette of its own, so colour is never alone.
import { LAMP_COLOUR, type Lamp } from "../lib/signal";
import { legible, type Theme } from "../lib/theme.svelte";

export type Shape = "lamps" | "ship" | "leaf" | "hexagon" | "square" | "diamond" | "pentagon" | "triangle" | "star" | "cross";

const SHAPES: Record<string, Shape> = { signals: "lamps", ports: "ship", farms: "leaf", edge: "hexagon" };
const OTHER_SHAPES: Shape[] = ["square", "diamond", "pentagon", "triangle", "star", "cross"];
const LETTER: Record<Lamp, string> = { go: "g", caution: "c", stop: "s", unknown: "u" };
const LAMP: Record<string, Lamp> = { g: "go", c: "caution", s: "stop", u: "unknown" };
export const LAMPS_MAX = 4;

/** The shape of a sector; one without a drawing of its own takes the next free plain one. */
export function shapeOf(sector: string, sectors: string[]): Shape {
  const own = SHAPES[sector];
  if (own) return own;
  const others = sectors.filter((name) => !SHAPES[name]);
  return OTHER_SHAPES[Math.max(others.indexOf(sector), 0) % OTHER_SHAPES.length] ?? "square";
}

export function iconName(shape: Shape, colour: string, theme: Theme, state: "live" | "silent" | "still" | Lamp[]): string {
  const what = typeof state === "string" ? state : state.map((lamp) => LETTER[lamp]).join("") || "u";
  return `${shape}|${colour}|${theme}|${what}`;
}

const INK: Record<Theme, string> = { light: "#ffffff", dark: "#0b1620" };
const HOUSING: Record<Theme, string> = { light: "#15293a", dark: "#050b11" };
const HOUSING_RIM: Record<Theme, string> = { light: "#ffffff", dark: "#5d7486" };

/** Draws the symbol that an icon name describes, `size` CSS pixels square. */
export function drawIcon(name: string, ratio: number, size = 28): ImageData | null {
  const [shape, colour, theme, state] = name.split("|") as [Shape, string, Theme, string];
  if (!state) return null;
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = Math.round(size * ratio);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  if (!pen) return null;
  paint(pen, shape, colour, theme, state, canvas.width);
  return pen.getImageData(0, 0, canvas.width, canvas.height);
}

export function paint(pen: CanvasRenderingContext2D, shape: Shape, colour: string, theme: Theme, state: string, pixels: number): void {
  pen.save();
  pen.scale(pixels / 28, pixels / 28);
  pen.translate(14, 14);
  pen.lineJoin = "round";
  if (shape === "lamps") paintLamps(pen, theme, [...state].slice(0, LAMPS_MAX).map((letter) => LAMP[letter] ?? "unknown"));
  else paintShape(pen, shape, legible(colour, theme), theme, state);
  pen.restore();
}

function paintLamps(pen: CanvasRenderingContext2D, theme: Theme, lamps: Lamp[]): void {
  const columns = lamps.length > 1 ? 2 : 1;
  const rows = Math.ceil(lamps.length / columns);
  const pitch = 8;
  const [width, height] = [columns * pitch + 3, rows * pitch + 3];
  pen.beginPath();
  pen.roundRect(-width / 2, -height / 2, width, height, 4.5);
  pen.fillStyle = HOUSING[theme];
  pen.strokeStyle = HOUSING_RIM[theme];
  pen.lineWidth = 1.3;
  pen.fill();
  pen.stroke();
  lamps.forEach((lamp, index) => {
    const x = ((index % columns) - (columns - 1) / 2) * pitch;
    const y = (Math.floor(index / columns) - (rows - 1) / 2) * pitch;
    paintLamp(pen, lamp, x, y, 3.1);
  });
}

/** Go is a disc, stop a square, caution a triangle, unknown an empty ring. */
export function paintLamp(pen: CanvasRenderingContext2D, lamp: Lamp, x: number, y: number, radius: number): void {
  pen.beginPath();
  if (lamp === "stop") pen.rect(x - radius * 0.9, y - radius * 0.9, radius * 1.8, radius * 1.8);
  else if (lamp === "caution") polygon(pen, 3, x, y + radius * 0.18, radius * 1.25, -Math.PI / 2);
  else pen.arc(x, y, lamp === "unknown" ? radius * 0.75 : radius, 0, Math.PI * 2);
  if (lamp === "unknown") {
    pen.strokeStyle = LAMP_COLOUR.unknown;
    pen.lineWidth = radius * 0.45;
    pen.stroke();
  } else {
    pen.fillStyle = LAMP_COLOUR[lamp];
    pen.fill();
  }
}

function paintShape(pen: CanvasRenderingContext2D, shape: Shape, colour: string, theme: Theme, state: string): void {
  outline(pen, shape, state);
  pen.strokeStyle = INK[theme];
  pen.lineWidth = 3.4;
  pen.stroke();
  // Silent Things are hollow: the shape stays, the filling goes.
  pen.fillStyle = state === "silent" ? INK[theme] : colour;
  pen.fill();
  pen.strokeStyle = colour;
  pen.lineWidth = state === "silent" ? 1.8 : 0.8;
  pen.stroke();
  pen.strokeStyle = pen.fillStyle = state === "silent" ? colour : INK[theme];
  detail(pen, shape, state);
}

function outline(pen: CanvasRenderingContext2D, shape: Shape, state: string): void {
  pen.beginPath();
  switch (shape) {
    case "ship":
      if (state === "still") polygon(pen, 4, 0, 0, 7.6, 0);
      else {
        pen.moveTo(0, -12);
        pen.quadraticCurveTo(6.4, -4, 6, 8.5);
        pen.lineTo(0, 5.2);
        pen.lineTo(-6, 8.5);
        pen.quadraticCurveTo(-6.4, -4, 0, -12);
        pen.closePath();
      }
      break;
    case "leaf":
      pen.moveTo(0, -9.5);
      pen.bezierCurveTo(8.6, -6, 8.8, 5.2, 0, 9.5);
      pen.bezierCurveTo(-8.8, 5.2, -8.6, -6, 0, -9.5);
      pen.closePath();
      break;
    case "hexagon":
      polygon(pen, 6, 0, 0, 9, 0);
      break;
    case "pentagon":
      polygon(pen, 5, 0, 0.6, 9, -Math.PI / 2);
      break;
    case "triangle":
      polygon(pen, 3, 0, 1.6, 9.6, -Math.PI / 2);
      break;
    case "diamond":
      polygon(pen, 4, 0, 0, 9.2, 0);
      break;
    case "star":
      polygon(pen, 5, 0, 0.6, 10, -Math.PI / 2, 0.48);
      break;
    case "cross":
      for (const [x, y] of CROSS) pen.lineTo(x * 3, y * 3);
      pen.closePath();
      break;
    default:
      pen.roundRect(-7.5, -7.5, 15, 15, 2.5);
  }
}

const CROSS: [number, number][] = [
  [-1, -3], [1, -3], [1, -1], [3, -1], [3, 1], [1, 1], [1, 3], [-1, 3], [-1, 1], [-3, 1], [-3, -1], [-1, -1],
];

function detail(pen: CanvasRenderingContext2D, shape: Shape, state: string): void {
  pen.lineWidth = 1.4;
  pen.lineCap = "round";
  pen.beginPath();
  if (shape === "leaf") {
    pen.moveTo(0, 6);
    pen.lineTo(0, -4);
    pen.moveTo(0, 2.5);
    pen.lineTo(3, -0.5);
    pen.moveTo(0, 0);
    pen.lineTo(-3, -3);
    pen.stroke();
  } else if (shape === "hexagon") {
    pen.arc(0, 2.6, 1.5, 0, Math.PI * 2);
    pen.fill();
    for (const radius of [4.2, 7]) {
      pen.beginPath();
      pen.arc(0, 2.6, radius, -Math.PI * 0.78, -Math.PI * 0.22);
      pen.stroke();
    }
  } else if (shape === "ship" && state === "still") {
    pen.arc(0, 0, 2, 0, Math.PI * 2);
    pen.fill();
  }
}

function polygon(pen: CanvasRenderingContext2D, corners: number, x: number, y: number, radius: number, turn: number, inner = 0): void {
  const points = inner ? corners * 2 : corners;
  for (let index = 0; index < points; index++) {
    const angle = turn + (index * 2 * Math.PI) / points;
    const reach = inner && index % 2 ? radius * inner : radius;
    pen.lineTo(x + reach * Math.cos(angle), y + reach * Math.sin(angle));
  }
  pen.closePath();
}
