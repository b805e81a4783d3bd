// Light or dark: the system's wish unless the reader chose; sector colours made legible on both.
export type Theme = "light" | "dark";
const THEME_KEY = "chimata-theme";
const wish = matchMedia("(prefers-color-scheme: dark)");

class Appearance {
  private system = $state<Theme>(wish.matches ? "dark" : "light");
  private chosen = $state<Theme | null>(keptTheme());
  theme = $derived<Theme>(this.chosen ?? this.system);

  constructor() {
    wish.addEventListener("change", () => (this.system = wish.matches ? "dark" : "light"));
  }

  choose(theme: Theme): void {
    this.chosen = theme;
    localStorage.setItem(THEME_KEY, theme);
  }
}

function keptTheme(): Theme | null {
  const kept = localStorage.getItem(THEME_KEY);
  return kept === "light" || kept === "dark" ? kept : null;
}

export const appearance = new Appearance();

type Rgb = [number, number, number];

function parse(hex: string): Rgb {
  const value = /^#[0-9a-f]{6}$/i.test(hex) ? hex.slice(1) : "2b6cb0";
  return [0, 2, 4].map((at) => parseInt(value.slice(at, at + 2), 16)) as Rgb;
}

function luminance(rgb: Rgb): number {
  const [r, g, b] = rgb.map((channel) => {
    const part = channel / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  }) as Rgb;
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(a: Rgb, b: Rgb): number {
  const [light, dark] = [luminance(a), luminance(b)].sort((x, y) => y - x) as [number, number];
  return (light + 0.05) / (dark + 0.05);
}

const GROUND: Record<Theme, Rgb> = { light: [247, 245, 239], dark: [19, 33, 44] };

/** The sector's colour, moved towards black or white until it stands out 4.5:1 from the land. */
export function legible(hex: string, theme: Theme): string {
  const goal = theme === "light" ? 0 : 255;
  let colour = parse(hex);
  for (let step = 0; step < 20 && contrast(colour, GROUND[theme]) < 4.5; step++) {
    colour = colour.map((channel) => Math.round(channel + (goal - channel) * 0.1)) as Rgb;
  }
  return `#${colour.map((channel) => channel.toString(16).padStart(2, "0")).join("")}`;
}
