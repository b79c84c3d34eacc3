"""The names of COCO-Stuff's labels, 1 to 182; Caesar et al., CVPR 2018, labels.txt of nightrome/cocostuff."""

LISTED = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, street sign,
stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, hat,
backpack, umbrella, shoe, eye glasses, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite,
baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, plate, wine glass, cup, fork,
knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair,
couch, potted plant, bed, mirror, dining table, window, desk, toilet, door, tv, laptop, mouse, remote,
keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, blender, book, clock, vase, scissors,
teddy bear, hair drier, toothbrush, hair brush, banner, blanket, branch, bridge, building-other, bush,
cabinet, cage, cardboard, carpet, ceiling-other, ceiling-tile, cloth, clothes, clouds, counter, cupboard,
curtain, desk-stuff, dirt, door-stuff, fence, floor-marble, floor-other, floor-stone, floor-tile, floor-wood,
flower, fog, food-other, fruit, furniture-other, grass, gravel, ground-other, hill, house, leaves, light, mat,
metal, mirror-stuff, moss, mountain, mud, napkin, net, paper, pavement, pillow, plant-other, plastic,
platform, playingfield, railing, railroad, river, road, rock, roof, rug, salad, sand, sea, shelf, sky-other,
skyscraper, snow, solid-other, stairs, stone, straw, structural-other, table, tent, textile-other, towel,
tree, vegetable, wall-brick, wall-concrete, wall-other, wall-panel, wall-stone, wall-tile, wall-wood,
water-other, waterdrops, window-blind, window-other, wood
"""
NEVER_DRAWN = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)  # listed for COCO, and in no mask of it
LABELS = dict(enumerate((" ".join(name.split()) for name in LISTED.split(",")), start=1))
STUFF = {label - 1: name for label, name in LABELS.items() if label not in NEVER_DRAWN}
"""Value in a stuffthingmap -> name; 171 of them. The maps count from 0, so a value is the label less one."""
