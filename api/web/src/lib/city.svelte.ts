// The city as the page knows it: sectors, Things with latest values, kept fresh by the live stream.
import { get, keepToken, pages, Problem } from "./api";
import { type Connection, listen } from "./live";
import { isPosition, type Latest, type LatestFeature, type LatestPage, type LiveBatch, type Result, type Sector, type ThingPage } from "./types";

export interface CityThing {
  key: string;
  sector: string;
  id: string;
  name: string;
  longitude: number | null;
  latitude: number | null;
  lastSeen: number;
  latest: Map<string, { result: Result; unit: string | null; time: number; quality: number }>;
}
export interface Layer {
  sector: Sector;
  visible: boolean;
  access: "open" | "locked" | "failed";
  count: number;
}
export interface Bounds {
  west: number;
  south: number;
  east: number;
  north: number;
}

const PAGE_ROWS = 2_000;
const OUTLINES_MAX = 5_000;
const RATE_WINDOW_SECONDS = 5;
const RETRY_SECONDS = 10;
const SETTLING_SECONDS = 90;
const FLUSH_MILLISECONDS_MIN = 250;
const RELOAD_AFTER_MILLISECONDS = 1_500;
// A Thing that was silent for longer is drawn as such: its last value is no longer news.
const SILENT_SECONDS: Record<string, number> = { signals: 20, edge: 60, ports: 900, farms: 7_200 };
const SILENT_SECONDS_DEFAULT = 3_600;
// Signals are events: silence does not show in the stream, so their liveness is read again.
const REREAD_SECONDS: Record<string, number> = { signals: 10 };

export function isSilent(thing: CityThing, now: number): boolean {
  return now - thing.lastSeen > 1_000 * (SILENT_SECONDS[thing.sector] ?? SILENT_SECONDS_DEFAULT);
}

type Listener = (sector: string, keys: Set<string> | "all") => void;

class City {
  layers = $state<Layer[]>([]);
  connection = $state<Connection>("connecting");
  loaded = $state(false);
  failure = $state("");
  /** Moves at most once a second; what a table or a panel redraws by. */
  revision = $state(0);
  rate = $state(0);
  now = $state(Date.now());
  selected = $state<{ sector: string; id: string } | null>(null);
  bounds = $state<Bounds | null>(null);

  readonly things = new Map<string, CityThing>();
  readonly outlines = new Map<string, GeoJSON.Feature[]>();

  private listeners = new Set<Listener>();
  private touched = new Map<string, Set<string>>();
  private frame = 0;
  private flushed = 0;
  private known = new Map<string, number>();
  private settling = new Map<string, number>();
  private arrived: number[] = [];
  private stopLive = (): void => {};
  private reloads = new Map<string, ReturnType<typeof setTimeout>>();

  async start(): Promise<void> {
    setInterval(() => this.tick(), 1_000);
    await this.load();
  }

  onChange(listener: Listener): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  layer(sector: string): Layer | undefined {
    return this.layers.find((layer) => layer.sector.name === sector);
  }

  select(sector: string, id: string): void {
    this.selected = { sector, id };
  }

  heard(sector: string, id: string, time: number): void {
    const thing = this.things.get(`${sector}/${id}`);
    if (thing) thing.lastSeen = Math.max(thing.lastSeen, time);
  }

  async signIn(bearer: string | null): Promise<void> {
    keepToken(bearer);
    await this.load();
  }

  async load(): Promise<void> {
    this.stopLive();
    this.connection = "connecting";
    this.failure = "";
    try {
      const told = await get<{ sectors: Sector[] }>("/v1/sectors");
      const sectors = told.sectors.filter((sector) => sector.data_class !== "personal"); // no map of persons
      const hidden = new Set(this.layers.filter((layer) => !layer.visible).map((layer) => layer.sector.name));
      this.layers = sectors.map((sector) => ({
        sector,
        visible: !hidden.has(sector.name),
        access: "open",
        count: sector.things ?? 0,
      }));
    } catch (error) {
      this.failure = error instanceof Error ? error.message : String(error);
      this.connection = "lost";
      setTimeout(() => void this.load(), 5_000);
      return;
    }
    await Promise.all(this.layers.map((layer) => this.loadSector(layer.sector.name)));
    this.loaded = true;
    this.listen();
  }

  private listen(): void {
    this.stopLive();
    const open = this.layers.filter((layer) => layer.access === "open").map((layer) => layer.sector.name);
    if (!open.length) return;
    this.stopLive = listen(open, {
      batch: (batch) => this.apply(batch),
      reset: () => open.forEach((sector) => void this.loadSector(sector)),
      state: (connection) => (this.connection = connection),
    });
  }

  async loadSector(sector: string): Promise<void> {
    const layer = this.layer(sector);
    if (!layer) return;
    const seen = new Set<string>();
    try {
      for await (const page of pages<LatestPage>(`/v1/${sector}/latest?limit=${PAGE_ROWS}`)) {
        for (const feature of page.features) seen.add(this.take(sector, feature).key);
      }
      layer.access = "open";
    } catch (error) {
      const status = error instanceof Problem ? error.status : 0;
      const refused = status === 401 || status === 403;
      if (!refused && seen.size === 0 && this.loaded) return; // a hiccup: keep what is known
      layer.access = refused ? "locked" : "failed";
    }
    for (const [key, thing] of this.things) {
      if (thing.sector === sector && !seen.has(key)) this.things.delete(key);
    }
    this.count(sector);
    if (layer.access === "open" && seen.size !== this.known.get(sector)) {
      // New Things: their places and outlines may follow in messages that the stream does not show.
      this.known.set(sector, seen.size);
      this.settling.set(sector, this.ticks + SETTLING_SECONDS);
      void this.loadOutlines(sector);
    }
    this.revision++;
    for (const listener of this.listeners) listener(sector, "all");
  }

  private async loadOutlines(sector: string): Promise<void> {
    const outlines: GeoJSON.Feature[] = [];
    try {
      for await (const page of pages<ThingPage>(`/v1/${sector}/things?limit=1000`, undefined, OUTLINES_MAX / 1000)) {
        for (const row of page.things) {
          if (row.geometry && row.geometry.type !== "Point") {
            outlines.push({ type: "Feature", properties: { key: `${sector}/${row.id}` }, geometry: row.geometry });
          }
        }
      }
    } catch {
      return; // outlines are an extra: the points are there
    }
    this.outlines.set(sector, outlines);
    for (const listener of this.listeners) listener(sector, "all");
  }

  private take(sector: string, feature: LatestFeature): CityThing {
    const key = `${sector}/${feature.id}`;
    const thing = this.things.get(key) ?? blank(sector, String(feature.id));
    thing.name = feature.properties.name || thing.id;
    if (feature.geometry) [thing.longitude, thing.latitude] = feature.geometry.coordinates;
    if (feature.properties.last_seen) {
      thing.lastSeen = Math.max(thing.lastSeen, Date.parse(feature.properties.last_seen));
    }
    for (const [property, latest] of Object.entries(feature.properties.latest)) learn(thing, property, latest);
    this.things.set(key, thing);
    return thing;
  }

  private apply(batch: LiveBatch): void {
    this.arrived.push(batch.observations.length);
    let touched = this.touched.get(batch.sector);
    if (!touched) this.touched.set(batch.sector, (touched = new Set()));
    for (const observation of batch.observations) {
      const key = `${batch.sector}/${observation.thing}`;
      const thing = this.things.get(key);
      if (!thing) {
        this.reloadSoon(batch.sector); // new: its name and place are in /latest
        continue;
      }
      learn(thing, observation.property, observation);
      touched.add(key);
    }
    this.flushSoon();
  }

  /** At the next frame, but not at every frame: a drawn map costs power. */
  private flushSoon(): void {
    if (this.frame) return;
    this.frame = 1;
    const wait = Math.max(0, this.flushed + FLUSH_MILLISECONDS_MIN - performance.now());
    setTimeout(() => requestAnimationFrame(() => this.flush()), wait);
  }

  private flush(): void {
    this.frame = 0;
    this.flushed = performance.now();
    for (const [sector, keys] of this.touched) {
      if (keys.size) for (const listener of this.listeners) listener(sector, keys);
    }
    this.touched.clear();
  }

  private reloadSoon(sector: string): void {
    if (this.reloads.has(sector)) return;
    this.reloads.set(
      sector,
      setTimeout(() => {
        this.reloads.delete(sector);
        void this.loadSector(sector);
      }, RELOAD_AFTER_MILLISECONDS),
    );
  }

  private sums: number[] = [];
  private ticks = 0;

  private tick(): void {
    this.now = Date.now();
    this.sums.push(this.arrived.reduce((sum, count) => sum + count, 0));
    this.arrived = [];
    if (this.sums.length > RATE_WINDOW_SECONDS) this.sums.shift();
    this.rate = this.sums.reduce((sum, count) => sum + count, 0) / this.sums.length;
    this.revision++;
    this.ticks++;
    if (document.hidden) return;
    for (const layer of this.layers) {
      const every = REREAD_SECONDS[layer.sector.name];
      if (every && layer.access === "open" && layer.visible && this.ticks % every === 0) {
        void this.loadSector(layer.sector.name);
      }
      if (layer.access === "open" && this.ticks % RETRY_SECONDS === 0 && this.ticks < (this.settling.get(layer.sector.name) ?? 0)) {
        void this.loadSector(layer.sector.name);
      }
      if (layer.access !== "open" && this.ticks % RETRY_SECONDS === 0) void this.retry(layer);
    }
  }

  /** A sector opens by itself once a stream in it is declared open, as when a city starts. */
  private async retry(layer: Layer): Promise<void> {
    await this.loadSector(layer.sector.name);
    if (layer.access !== "open") return;
    this.listen();
  }

  private count(sector: string): void {
    const layer = this.layer(sector);
    if (!layer || layer.access !== "open") return;
    let count = 0;
    for (const thing of this.things.values()) if (thing.sector === sector) count++;
    layer.count = count;
  }
}

function blank(sector: string, id: string): CityThing {
  return { key: `${sector}/${id}`, sector, id, name: id, longitude: null, latitude: null, lastSeen: 0, latest: new Map() };
}

/** Newest wins: what arrives late never replaces what is newer. */
function learn(thing: CityThing, property: string, latest: Latest): void {
  const time = Date.parse(latest.phenomenon_time);
  const before = thing.latest.get(property);
  if (before && before.time > time) return;
  thing.latest.set(property, {
    result: latest.result,
    unit: latest.unit ?? before?.unit ?? null,
    time,
    quality: latest.quality,
  });
  thing.lastSeen = Math.max(thing.lastSeen, time);
  if (isPosition(latest.result)) {
    thing.longitude = latest.result.longitude;
    thing.latitude = latest.result.latitude;
  }
}

export const city = new City();
