// The tools, in the order of the rail. A new one is a file in tools/ and a line here.

import box from "./tools/box.js";
import { brush, eraser } from "./tools/brush.js";
import fill from "./tools/fill.js";
import hover from "./tools/hover.js";
import polygon from "./tools/polygon.js";
import prelabel from "./tools/prelabel.js";
import select from "./tools/select.js";
import { snapper } from "./tools/snap.js";
import superpixel from "./tools/superpixel.js";
import wand from "./tools/wand.js";

polygon.snapper = snapper;

export const TOOLS = [select, brush, eraser, polygon, superpixel, box, hover, fill, wand, prelabel];
