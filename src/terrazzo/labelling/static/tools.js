// The tools, in the order of the rail. A new one is a file in tools/ and a line here.

import { brush, eraser } from "./tools/brush.js";
import fill from "./tools/fill.js";
import polygon from "./tools/polygon.js";
import select from "./tools/select.js";
import wand from "./tools/wand.js";

export const TOOLS = [select, brush, eraser, polygon, fill, wand];
