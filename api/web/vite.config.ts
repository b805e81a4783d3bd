// How the dashboard is bundled: same-origin files only, so that it runs under `default-src 'self'`.
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [svelte()],
  // A folder of its own, so that the built map data beside it survives a rebuild of the page.
  build: { outDir: "dist", target: "es2022", assetsInlineLimit: 0, chunkSizeWarningLimit: 1500 },
  worker: { format: "es" },
  server: { proxy: { "/v1": "http://127.0.0.1:8000", "/basemap": "http://127.0.0.1:8000" } },
});
