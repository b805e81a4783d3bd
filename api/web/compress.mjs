// Precompresses what the API serves: .gz and .br beside every text file of dist/.
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const TEXT = /\.(html|js|css|svg|json|geojson)$/;
const BROTLI_QUALITY = 9;
const BYTES_MIN = 1_000;

function* files(folder) {
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) yield* files(path);
    else if (TEXT.test(name) && statSync(path).size >= BYTES_MIN) yield path;
  }
}

for (const path of files(process.argv[2])) {
  const body = readFileSync(path);
  const options = { params: { [constants.BROTLI_PARAM_QUALITY]: BROTLI_QUALITY } };
  writeFileSync(`${path}.gz`, gzipSync(body, { level: 9 }));
  writeFileSync(`${path}.br`, brotliCompressSync(body, options));
}
