// The map's look: a harbour chart. Shoals are drawn as bands along the coast, land as paper.
import type { ExpressionSpecification, LayerSpecification, StyleSpecification } from "maplibre-gl";
import type { Theme } from "../lib/theme.svelte";
import type { Language } from "../lib/words.svelte";

export const FONT = "Noto Sans JP Variable";

interface Palette {
  sea: string;
  shoals: [string, string, string];
  land: string;
  coast: string;
  river: string;
  grid: string;
  gridText: string;
  place: string;
  town: string;
  halo: string;
  seaName: string;
  summit: string;
  label: string;
}

export const PALETTES: Record<Theme, Palette> = {
  light: {
    sea: "#cfe0e6",
    shoals: ["#d5e5e9", "#dcebed", "#e5f1f1"],
    land: "#f7f5ef",
    coast: "#7d98a5",
    river: "#b9d2dc",
    grid: "#8fa9b5",
    gridText: "#4a6573",
    place: "#2b3b47",
    town: "#56656f",
    halo: "#f7f5ef",
    seaName: "#3f6577",
    summit: "#6b5a45",
    label: "#22313c",
  },
  dark: {
    sea: "#0a151e",
    shoals: ["#0c1a25", "#0f202d", "#132735"],
    land: "#1a2833",
    coast: "#48616f",
    river: "#223b4b",
    grid: "#2b4352",
    gridText: "#7f98a6",
    place: "#c9d5dd",
    town: "#93a5b1",
    halo: "#131f29",
    seaName: "#6f93a7",
    summit: "#b9a58c",
    label: "#d5e0e7",
  },
};

// Widths grow with the scale, so that the bands stand for a distance and not for pixels.
function band(pixelsAtZoom10: number): ExpressionSpecification {
  return ["interpolate", ["exponential", 2], ["zoom"], 5, Math.max(pixelsAtZoom10 / 20, 1.5), 10, pixelsAtZoom10, 13, pixelsAtZoom10 * 4, 22, pixelsAtZoom10 * 8];
}

function shoal(id: string, colour: string, width: number): LayerSpecification {
  return {
    id,
    type: "line",
    source: "land",
    filter: ["==", ["get", "kind"], "land"],
    layout: { "line-join": "round" },
    paint: { "line-color": colour, "line-width": band(width) },
  };
}

export function baseStyle(theme: Theme, language: Language): StyleSpecification {
  const palette = PALETTES[theme];
  const name: ExpressionSpecification = ["get", language];
  const text = (colour: string) => ({ "text-color": colour, "text-halo-color": palette.halo, "text-halo-width": 1.4 });
  return {
    version: 8,
    sources: {
      land: { type: "geojson", data: "/basemap/land.geojson", tolerance: 0.2, maxzoom: 13 },
      places: { type: "geojson", data: "/basemap/places.geojson" },
      grid: { type: "geojson", data: { type: "FeatureCollection", features: [] } },
    },
    layers: [
      { id: "sea", type: "background", paint: { "background-color": palette.sea } },
      shoal("shoal-far", palette.shoals[0], 34),
      shoal("shoal-mid", palette.shoals[1], 18),
      shoal("shoal-near", palette.shoals[2], 7),
      { id: "land", type: "fill", source: "land", filter: ["==", ["get", "kind"], "land"], paint: { "fill-color": palette.land, "fill-antialias": false } },
      { id: "lake", type: "fill", source: "land", filter: ["==", ["get", "kind"], "lake"], paint: { "fill-color": palette.shoals[0] } },
      { id: "river", type: "line", source: "land", filter: ["==", ["get", "kind"], "river"], minzoom: 6, maxzoom: 11.5, layout: { "line-cap": "round", "line-join": "round" }, paint: { "line-color": palette.river, "line-width": ["interpolate", ["linear"], ["zoom"], 6, 0.4, 11, 1.6], "line-opacity": ["interpolate", ["linear"], ["zoom"], 10.5, 1, 11.5, 0] } },
      { id: "coast", type: "line", source: "land", filter: ["in", ["get", "kind"], ["literal", ["land", "lake"]]], layout: { "line-join": "round" }, paint: { "line-color": palette.coast, "line-width": ["interpolate", ["linear"], ["zoom"], 4, 0.4, 9, 0.9, 14, 1.6] } },
      { id: "grid", type: "line", source: "grid", paint: { "line-color": palette.grid, "line-width": 0.6, "line-opacity": 0.55, "line-dasharray": [3, 4] } },
      { id: "grid-text", type: "symbol", source: "grid", filter: ["has", "label"], layout: { "symbol-placement": "point", "text-field": ["get", "label"], "text-font": [FONT], "text-size": 10, "text-anchor": ["get", "anchor"], "text-offset": ["get", "offset"], "text-allow-overlap": true, "text-ignore-placement": true }, paint: { "text-color": palette.gridText, "text-halo-color": palette.halo, "text-halo-width": 0.8, "text-opacity": 0.9 } },
      { id: "sea-names", type: "symbol", source: "places", filter: ["all", ["==", ["get", "kind"], "sea"], ["<=", ["get", "rank"], ["step", ["zoom"], 1, 6.5, 2, 8.5, 3]]], layout: { "text-field": name, "text-font": [FONT], "text-size": ["interpolate", ["linear"], ["zoom"], 4, 12, 11, 17], "text-letter-spacing": 0.35, "text-max-width": 12 }, paint: { "text-color": palette.seaName, "text-opacity": 0.85 } },
      { id: "summits", type: "symbol", source: "places", minzoom: 7, filter: ["all", ["==", ["get", "kind"], "summit"], ["<=", ["get", "rank"], ["step", ["zoom"], 1, 8.5, 2, 10, 3]]], layout: { "text-field": ["concat", "▲ ", name], "text-font": [FONT], "text-size": 11 }, paint: text(palette.summit) },
      { id: "towns", type: "symbol", source: "places", minzoom: 8.5, filter: ["all", ["==", ["get", "kind"], "place"], ["<", ["get", "population"], 150000], [">=", ["get", "population"], ["step", ["zoom"], 60000, 9.5, 25000, 10.5, 8000, 11.5, 0]]], layout: { "text-field": name, "text-font": [FONT], "text-size": ["interpolate", ["linear"], ["zoom"], 9, 11, 13, 14], "text-padding": 8, "symbol-sort-key": ["-", ["get", "population"]] }, paint: text(palette.town) },
      { id: "cities", type: "symbol", source: "places", minzoom: 3, filter: ["all", ["==", ["get", "kind"], "place"], [">=", ["get", "population"], ["step", ["zoom"], 3000000, 5, 1000000, 6, 600000, 7, 300000, 8.2, 150000]]], layout: { "text-field": name, "text-font": [FONT], "text-size": ["interpolate", ["linear"], ["zoom"], 4, 11, 8, 13.5, 13, 19], "text-padding": 8, "text-letter-spacing": 0.06, "symbol-sort-key": ["-", ["get", "population"]] }, paint: text(palette.place) },
    ],
  };
}
