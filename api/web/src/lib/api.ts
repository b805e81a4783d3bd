// One door to the platform's HTTP API: bearer token, problem+json errors, bounded paging.
const TOKEN_KEY = "chimata-token";
const PAGES_MAX = 40;

export class Problem extends Error {
  constructor(
    readonly status: number,
    title: string,
    readonly detail: string,
  ) {
    super(title);
  }
}

export function token(): string | null {
  return sessionStorage.getItem(TOKEN_KEY);
}

export function keepToken(value: string | null): void {
  if (value) sessionStorage.setItem(TOKEN_KEY, value);
  else sessionStorage.removeItem(TOKEN_KEY);
}

export function headers(): Record<string, string> {
  const bearer = token();
  return bearer ? { Authorization: `Bearer ${bearer}` } : {};
}

export async function get<Answer>(path: string, signal?: AbortSignal): Promise<Answer> {
  const answer = await fetch(path, { headers: { Accept: "application/json", ...headers() }, signal });
  if (!answer.ok) {
    const body = (await answer.json().catch(() => ({}))) as { title?: string; detail?: string };
    throw new Problem(answer.status, body.title ?? answer.statusText, body.detail ?? "");
  }
  return (await answer.json()) as Answer;
}

/** Every page from `path` on, following `next`; bounded, so that a huge sector cannot fill the tab. */
export async function* pages<Page extends { next?: string | null }>(
  path: string,
  signal?: AbortSignal,
  pagesMax = PAGES_MAX,
): AsyncGenerator<Page> {
  let next: string | null | undefined = path;
  for (let page = 0; next && page < pagesMax; page++) {
    const answer: Page = await get<Page>(next, signal);
    yield answer;
    next = answer.next;
  }
}

export function thingPath(sector: string, id: string): string {
  return `/v1/${encodeURIComponent(sector)}/things/${encodeURIComponent(id)}`;
}
