"""The drawing room of the synthetic street scenes: layout -> shapes on a canvas -> light on every pixel.

    dice.py      random choices, cheap enough for hundreds per scene
    canvas.py    the camera, and the canvas that remembers *which part* is seen at every pixel, not its colour
    light.py     sun, sky, haze: how bright a surface is
    layout.py    what stands where: the street, its zones, and who is in it
    ground.py    road, sidewalk and grass, markings, cast shadows
    houses.py    buildings, roofs, walls, the far end of the street
    stand.py     flat cut-outs, and bodies with faces
    vehicles.py  people.py  furniture.py  plants.py     who and what is there
    noise.py     seamless tiles of noise
    shading.py   parts -> colours: textures, windows, leaves, haze, camera noise

Class and colour of a pixel come from the same part, so masks are exact by construction. The door is `data/scenes.py`.
"""
