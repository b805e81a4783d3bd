// UCUM codes as people write them; a code that is not listed is shown as it came.
const HUMAN: Record<string, string> = {
  "1": "",
  "%": "%",
  Cel: "°C",
  deg: "°",
  "deg/min": "°/min",
  "m/s": "m/s",
  "km/h": "km/h",
  "[kn_i]": "kn",
  "dB{mW}": "dBm",
  "dB[mW]": "dBm",
  By: "B",
  "[pH]": "",
  "uS/cm": "µS/cm",
  "kg/kg": "kg/kg",
  "dB(mW)": "dBm",
  dB: "dB",
  ms: "ms",
  s: "s",
  "Mbit/s": "Mbit/s",
  "kbit/s": "kbit/s",
  "bit/s": "bit/s",
  hPa: "hPa",
  kPa: "kPa",
  "mS/cm": "mS/cm",
  "dS/m": "dS/m",
  "m3/m3": "m³/m³",
  "W/m2": "W/m²",
  "umol/m2/s": "µmol/m²/s",
  "umol/(m2.s)": "µmol/m²/s",
  "[ppm]": "ppm",
  lx: "lx",
  mm: "mm",
  m: "m",
  km: "km",
  V: "V",
  mV: "mV",
  W: "W",
  "{count}": "",
  "{#}": "",
};

export function humanUnit(unit: string | null | undefined): string {
  if (!unit) return "";
  const known = HUMAN[unit];
  if (known !== undefined) return known;
  // Annotations such as {device} only name what is counted.
  return unit.replace(/\{[^}]*\}/g, "").replace(/^1$/, "");
}
