// The live stream: EventSource for open data, a fetch stream where a bearer token must be sent.
import { headers, token } from "./api";
import type { LiveBatch } from "./types";

export type Connection = "connecting" | "live" | "lost";
export interface LiveHandlers {
  batch(batch: LiveBatch): void;
  reset(): void;
  state(connection: Connection): void;
}

const RETRY_MILLISECONDS_MIN = 1_000;
const RETRY_MILLISECONDS_MAX = 30_000;
const BUFFER_CHARACTERS_MAX = 8 * 1024 * 1024;

/** Opens the stream and keeps it open; returns the function that closes it. */
export function listen(sectors: string[], handlers: LiveHandlers): () => void {
  const url = `/v1/live?sector=${sectors.map(encodeURIComponent).join(",")}`;
  const abort = new AbortController();
  if (token()) void keepFetching(url, handlers, abort.signal);
  else keepListening(url, handlers, abort.signal);
  return () => abort.abort();
}

function keepListening(url: string, handlers: LiveHandlers, closed: AbortSignal): void {
  let wait = RETRY_MILLISECONDS_MIN;
  const open = (again: boolean): void => {
    if (closed.aborted) return;
    const source = new EventSource(url);
    closed.addEventListener("abort", () => source.close(), { once: true });
    source.onopen = () => {
      wait = RETRY_MILLISECONDS_MIN;
      handlers.state("live");
      // A new EventSource has forgotten its last event id: catch up from the latest values.
      if (again) handlers.reset();
      again = false;
    };
    source.onerror = () => {
      if (closed.aborted) return;
      handlers.state("lost");
      if (source.readyState !== EventSource.CLOSED) return;
      setTimeout(() => open(true), wait);
      wait = Math.min(wait * 2, RETRY_MILLISECONDS_MAX);
    };
    source.addEventListener("observations", (event) => handlers.batch(JSON.parse(event.data as string)));
    source.addEventListener("reset", () => handlers.reset());
  };
  open(false);
}

async function keepFetching(url: string, handlers: LiveHandlers, closed: AbortSignal): Promise<void> {
  let lastId = "";
  let wait = RETRY_MILLISECONDS_MIN;
  while (!closed.aborted) {
    try {
      const sent: Record<string, string> = { Accept: "text/event-stream", ...headers() };
      if (lastId) sent["Last-Event-ID"] = lastId;
      const answer = await fetch(url, { headers: sent, signal: closed, cache: "no-store" });
      if (!answer.ok || !answer.body) throw new Error(String(answer.status));
      handlers.state("live");
      wait = RETRY_MILLISECONDS_MIN;
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      const parser = new EventParser((id, event, data) => {
        if (id) lastId = id;
        if (event === "observations") handlers.batch(JSON.parse(data));
        if (event === "reset") handlers.reset();
      });
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        parser.feed(value);
      }
    } catch {
      if (closed.aborted) return;
    }
    handlers.state("lost");
    await new Promise((resume) => setTimeout(resume, wait));
    wait = Math.min(wait * 2, RETRY_MILLISECONDS_MAX);
  }
}

/** Server-sent events by hand (WHATWG HTML 9.2.6), since EventSource sends no headers. */
export class EventParser {
  private buffer = "";
  private id = "";
  private event = "";
  private data: string[] = [];

  constructor(private readonly dispatch: (id: string, event: string, data: string) => void) {}

  feed(chunk: string): void {
    this.buffer += chunk;
    if (this.buffer.length > BUFFER_CHARACTERS_MAX) throw new Error("an event without an end");
    const lines = this.buffer.split(/\r\n|\n|\r(?!$)/);
    this.buffer = lines.pop() ?? "";
    for (const line of lines) this.take(line);
  }

  private take(line: string): void {
    if (line === "") {
      if (this.data.length) this.dispatch(this.id, this.event || "message", this.data.join("\n"));
      this.event = "";
      this.data = [];
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "id") this.id = value;
    else if (field === "event") this.event = value;
    else if (field === "data") this.data.push(value);
  }
}
