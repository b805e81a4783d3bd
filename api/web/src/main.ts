// Starts the page.
import "@fontsource-variable/noto-sans-jp/wght.css";
import { mount } from "svelte";
import App from "./App.svelte";
import "./app.css";

const target = document.getElementById("app");
if (target) mount(App, { target });
