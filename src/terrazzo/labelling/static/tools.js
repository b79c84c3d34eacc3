// The tools, in the order of the rail. A new one is a file in tools/ and a line here.

import { brush, eraser } from "./tools/brush.js";

export const TOOLS = [brush, eraser];
