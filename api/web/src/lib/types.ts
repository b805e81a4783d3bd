// The shapes of the public HTTP API that the dashboard reads (see /docs of a running platform).

export interface Title {
  ja: string;
  en: string;
}
export type Kind = "number" | "category" | "position" | "document";
export interface Property {
  name: string;
  title: Title;
  unit: string | null;
  kind: Kind;
  minimum: number | null;
  maximum: number | null;
  vocabulary: string[];
}
export interface Sector {
  name: string;
  title: Title;
  thing_title: Title;
  colour: string;
  data_class: string;
  things: number | null;
  properties: Property[];
}
export interface Position {
  longitude: number;
  latitude: number;
  speed: number | null;
  course: number | null;
}
export type Result = number | string | boolean | null | Position | Record<string, unknown>;
export interface Latest {
  result: Result;
  unit?: string | null;
  phenomenon_time: string;
  quality: number;
}
export interface LatestFeature {
  id: string;
  geometry: { type: "Point"; coordinates: [number, number] } | null;
  properties: {
    name: string | null;
    last_seen: string | null;
    latest: Record<string, Latest>;
  };
}
export interface LatestPage {
  features: LatestFeature[];
  next?: string | null;
}
export interface Datastream {
  property: string;
  title: Title | null;
  unit: string | null;
  kind: Kind;
  data_class: string;
  undeclared: boolean;
  latest: { phenomenon_time: string; result: Result; quality: number } | null;
}
export interface ThingRow {
  id: string;
  name: string | null;
  location: { longitude: number; latitude: number } | null;
  geometry: GeoJSON.Geometry | null;
  properties: Record<string, unknown>;
  last_seen: string | null;
}
export interface ThingDetail extends ThingRow {
  datastreams: Datastream[];
}
export interface ThingPage {
  things: ThingRow[];
  next?: string | null;
}
export interface RawObservation {
  phenomenon_time: string;
  result: Result;
  quality: number;
}
export interface IntervalObservation {
  phenomenon_time: string;
  count: number;
  mean?: number | null;
  minimum?: number | null;
  maximum?: number | null;
  last?: Result;
  seconds?: Record<string, number>;
}
export interface ObservationPage<Row> {
  thing: string;
  property: string;
  unit: string | null;
  kind: Kind;
  interval: string | null;
  observations: Row[];
  next?: string | null;
}
export interface LiveBatch {
  sector: string;
  observations: {
    thing: string;
    property: string;
    phenomenon_time: string;
    result: Result;
    unit?: string | null;
    quality: number;
  }[];
}
export interface SignalGroup {
  signal_group: number;
  state: string;
  since: string | null;
  minimum_end_time: string | null;
  maximum_end_time: string | null;
  valid_until: string | null;
}
export interface Spat {
  intersection: string;
  as_of: string;
  valid_until: string | null;
  groups: SignalGroup[];
}

export function isPosition(result: unknown): result is Position {
  return typeof result === "object" && result !== null && "longitude" in result && "latitude" in result;
}
