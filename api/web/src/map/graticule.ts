// The chart's graticule for the part in view: a spacing people read, labelled along two edges.
import type { Map as MapLibreMap } from "maplibre-gl";

// Degrees; below one degree in whole minutes.
const STEPS = [30, 20, 10, 5, 2, 1, 0.5, 1 / 3, 1 / 6, 1 / 12, 1 / 30, 1 / 60, 1 / 120];
const PIXELS_BETWEEN_LINES = 130;

function label(degrees: number, positive: string, negative: string, fine: boolean): string {
  const total = Math.round(Math.abs(degrees) * 3600);
  const [whole, minutes, seconds] = [Math.floor(total / 3600), Math.floor((total % 3600) / 60), total % 60];
  const hemisphere = degrees < 0 ? negative : positive;
  if (!fine) return `${whole}°${hemisphere}`;
  return `${whole}°${String(minutes).padStart(2, "0")}′${seconds ? `${String(seconds).padStart(2, "0")}″` : ""}${hemisphere}`;
}

export function graticule(map: MapLibreMap): GeoJSON.FeatureCollection {
  const bounds = map.getBounds();
  const [west, east] = [bounds.getWest(), bounds.getEast()];
  const [south, north] = [Math.max(bounds.getSouth(), -84), Math.min(bounds.getNorth(), 84)];
  const pixels = map.getContainer().clientWidth / (east - west);
  const step = STEPS.findLast((candidate) => candidate * pixels >= PIXELS_BETWEEN_LINES) ?? STEPS[0] ?? 30;
  const fine = step < 1;
  const features: GeoJSON.Feature[] = [];
  const line = (coordinates: [number, number][]): void => {
    features.push({ type: "Feature", properties: {}, geometry: { type: "LineString", coordinates } });
  };
  const mark = (at: [number, number], text: string, anchor: string, offset: [number, number]): void => {
    features.push({ type: "Feature", properties: { label: text, anchor, offset }, geometry: { type: "Point", coordinates: at } });
  };
  for (let n = Math.ceil(west / step); n * step < east; n++) {
    line([[n * step, south], [n * step, north]]);
    const longitude = (((n * step + 180) % 360) + 360) % 360 - 180;
    mark([n * step, south], label(longitude, "E", "W", fine), "bottom-left", [0.3, -0.3]);
  }
  for (let n = Math.ceil(south / step); n * step < north; n++) {
    line([[west, n * step], [east, n * step]]);
    mark([east, n * step], label(n * step, "N", "S", fine), "bottom-right", [-0.4, -0.2]);
  }
  return { type: "FeatureCollection", features };
}
