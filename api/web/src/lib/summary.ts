// One line that says how a Thing is: what the table shows, and what a value reads like.
import type { CityThing } from "./city.svelte";
import { lamp, type Lamp } from "./signal";
import { isPosition, type Property, type Result } from "./types";
import { words } from "./words.svelte";

const KNOTS_PER_METRE_PER_SECOND = 1.943844;
const MOVING_METRES_PER_SECOND = 0.3;
const SUMMARY_VALUES_MAX = 2;
const DOCUMENT_PARTS_MAX = 6;
// 2000-01-01
const MOMENT_SECONDS_MIN = 946_684_800;

export function propertyTitle(properties: Property[], name: string): string {
  const [base, instance] = name.split("/");
  const declared = properties.find((property) => property.name === base);
  const title = words.title(declared?.title, base ?? name);
  return instance ? `${title} ${instance}` : title;
}

export function valueText(result: Result, unit: string | null | undefined): string {
  if (result === null) return "–";
  // Some series hold a moment itself: seconds since 1970, which nobody reads as a number.
  if (typeof result === "number" && unit === "s" && result > MOMENT_SECONDS_MIN) return words.time(result * 1_000);
  if (typeof result === "number") return words.quantity(result, unit);
  if (typeof result === "string") return words.state(result);
  if (isPosition(result)) {
    if (result.speed === null || !(result.speed > MOVING_METRES_PER_SECOND)) return words.t("position.still");
    return words.t("position.moving", {
      speed: words.tenth(result.speed * KNOTS_PER_METRE_PER_SECOND),
      course: result.course === null ? "–" : `${Math.round(result.course)}°`,
    });
  }
  return documentText(result);
}

/** A document's plain values in a row; whatever is nested stays in the API. */
function documentText(value: unknown): string {
  if (typeof value !== "object" || value === null) return String(value);
  const plain = Object.values(value).filter((part) => ["string", "number", "boolean"].includes(typeof part));
  return plain.slice(0, DOCUMENT_PARTS_MAX).join(" · ") || "…";
}

export function isMoment(result: Result, unit: string | null | undefined): boolean {
  return typeof result === "number" && unit === "s" && result > MOMENT_SECONDS_MIN;
}

export function lampsOf(thing: CityThing): Lamp[] {
  return [...thing.latest]
    .filter(([property]) => property.startsWith("signal-state"))
    .map(([property, latest]) => [Number(property.split("/")[1] ?? 0), lamp(String(latest.result))] as const)
    .sort(([a], [b]) => a - b)
    .map(([, state]) => state);
}

/** The first declared properties that hold a number, or the movement of what moves. */
export function summary(thing: CityThing, properties: Property[]): string {
  const position = thing.latest.get("position");
  // Only where moving is the point: an edge node's position says little beside its KPIs.
  if (position && properties[0]?.kind === "position") return valueText(position.result, null);
  const parts: string[] = [];
  for (const property of properties) {
    for (const [name, latest] of thing.latest) {
      if (name.split("/")[0] !== property.name || typeof latest.result !== "number" || isMoment(latest.result, latest.unit)) continue;
      parts.push(valueText(latest.result, latest.unit ?? property.unit));
      break;
    }
    if (parts.length === SUMMARY_VALUES_MAX) break;
  }
  if (parts.length) return parts.join(" · ");
  // Documents say nothing in one line: they are for the panel.
  const state = [...thing.latest.values()].find((latest) => typeof latest.result === "string");
  return state ? valueText(state.result, state.unit) : "–";
}
