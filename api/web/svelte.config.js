// Svelte 5 in runes mode; TypeScript inside <script lang="ts"> is handled by the bundler.
import { vitePreprocess } from "@sveltejs/vite-plugin-svelte";

export default { preprocess: vitePreprocess(), compilerOptions: { runes: true } };
