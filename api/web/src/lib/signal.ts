// What a movement phase state of J2735 (MovementPhaseState) means to a reader of the map.
export type Lamp = "go" | "caution" | "stop" | "unknown";

const LAMPS: Record<string, Lamp> = {
  "stop-Then-Proceed": "stop",
  "stop-And-Remain": "stop",
  "pre-Movement": "caution",
  "permissive-Movement-Allowed": "go",
  "protected-Movement-Allowed": "go",
  "permissive-clearance": "caution",
  "protected-clearance": "caution",
  "caution-Conflicting-Traffic": "caution",
  dark: "unknown",
  unavailable: "unknown",
  unknown: "unknown",
};

export function lamp(state: string): Lamp {
  return LAMPS[state] ?? "unknown";
}

export const LAMP_COLOUR: Record<Lamp, string> = {
  go: "#2fd08a",
  caution: "#ffc53d",
  stop: "#ff6257",
  unknown: "#9aa7b4",
};
