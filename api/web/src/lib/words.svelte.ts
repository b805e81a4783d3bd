// Japanese and English: two dictionaries of the same keys, and Intl for every number and time.
import en from "../words/en.json";
import ja from "../words/ja.json";
import type { Title } from "./types";
import { humanUnit } from "./units";

export type Language = "ja" | "en";
export type Word = keyof typeof ja;
const DICTIONARIES: Record<Language, Record<Word, string>> = { ja, en };
const LANGUAGE_KEY = "chimata-language";

function firstLanguage(): Language {
  const kept = localStorage.getItem(LANGUAGE_KEY);
  if (kept === "ja" || kept === "en") return kept;
  return navigator.language.toLowerCase().startsWith("ja") ? "ja" : "en";
}

class Words {
  language = $state<Language>(firstLanguage());
  locale = $derived(this.language === "ja" ? "ja-JP" : "en-GB");
  private relative = $derived(new Intl.RelativeTimeFormat(this.locale, { numeric: "always", style: "short" }));
  private plain = $derived(new Intl.NumberFormat(this.locale, { maximumSignificantDigits: 4 }));
  private whole = $derived(new Intl.NumberFormat(this.locale, { maximumFractionDigits: 0 }));
  private tenths = $derived(new Intl.NumberFormat(this.locale, { minimumFractionDigits: 1, maximumFractionDigits: 1 }));
  private clock = $derived(
    new Intl.DateTimeFormat(this.locale, { hour: "2-digit", minute: "2-digit", second: "2-digit" }),
  );
  private moment = $derived(
    new Intl.DateTimeFormat(this.locale, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" }),
  );

  speak(language: Language): void {
    this.language = language;
    localStorage.setItem(LANGUAGE_KEY, language);
  }

  t(word: Word, values: Record<string, string | number> = {}): string {
    return DICTIONARIES[this.language][word].replace(/\{(\w+)\}/g, (_, name: string) => String(values[name] ?? ""));
  }

  title(title: Title | null | undefined, fallback: string): string {
    return title?.[this.language] || fallback;
  }

  /** A state of a vocabulary; words without a translation are shown as they came. */
  state(state: string): string {
    const word = `state.${state}`;
    return word in DICTIONARIES[this.language] ? this.t(word as Word) : state.replaceAll("-", " ");
  }

  number(value: number): string {
    return Math.abs(value) >= 10_000 ? this.whole.format(value) : this.plain.format(value);
  }

  count(value: number): string {
    return this.whole.format(value);
  }

  tenth(value: number): string {
    return this.tenths.format(value);
  }

  quantity(value: number, unit: string | null | undefined): string {
    const written = humanUnit(unit);
    return written ? `${this.number(value)}${written === "%" || written === "°" ? "" : "\u00a0"}${written}` : this.number(value);
  }

  time(milliseconds: number): string {
    return this.clock.format(milliseconds);
  }

  dateTime(milliseconds: number): string {
    return this.moment.format(milliseconds);
  }

  age(milliseconds: number, now: number): string {
    const seconds = Math.round((milliseconds - now) / 1000);
    const past = Math.min(seconds, 0);
    if (past > -90) return this.relative.format(past, "second");
    if (past > -5_400) return this.relative.format(Math.round(past / 60), "minute");
    if (past > -129_600) return this.relative.format(Math.round(past / 3_600), "hour");
    if (past > -5_184_000) return this.relative.format(Math.round(past / 86_400), "day");
    if (past > -63_072_000) return this.relative.format(Math.round(past / 2_629_800), "month");
    return this.relative.format(Math.round(past / 31_557_600), "year");
  }
}

export const words = new Words();
