"""Which models of the catalogue serve as what in a room, chosen by eye: right side up, front forward, of the size they claim.

`ROLES` names models by their short names, or by their keys where short names are shared. `RECIPES` says what stands in each kind
of room: (role, where, how many at least, at most). Where is `wall` (its back against a wall), `open` (anywhere), `middle` (the
centre of the room), `before SOMETHING` (in front of that piece, facing it) or `around SOMETHING` (on its sides, facing it).
"""

from __future__ import annotations

ROLES: dict[str, tuple[str, ...]] = {
    "sofa": (
        "burlap_sofa", "clear_sofa", "couch3", "futon-couch", "beige_sofa", "beige_sofa_2seats", "leather_sofa",
        "simple_sofa", "sofa_white_beige", "sofa3", "winchesterSofa", "mid-century-sofa", "convertible-sofa-BZ-closed",
        "couch",
    ),
    "armchair": (
        "modernArmchair", "fotel", "mid-century-chair", "armchair3", "winchesterArmchair", "puff", "modern_armchair",
    ),
    "chair": (
        "antiqueChair", "plaidChair", "ella_chair_f", "oakChair", "osakaChair", "plastic_chair", "dining-chair", "thonet",
        "Scopia#chair", "Scopia#chair3", "Scopia#chair4", "white_kitchen_chair", "kitchenChair",
    ),
    "table": (
        "table4", "oakTable", "table-with-leaning-feet", "table-on-trestles", "wooden_table_office", "white_kitchen_table",
        "table3", "glass-dining-table", "wooden_office_pear_table_rect",
    ),
    "coffee table": ("coffeeTable", "coffee-table2", "saloon_table", "table_wood_and_iron", "living_room_table"),
    "shelf": (
        "full-bookcase", "dining_room", "shelves", "kids_shelves", "utility-shelving", "verticalShelves",
        "televisionCabinet",
    ),
    "sideboard": ("dresserWithDrawers", "chest", "fireplace1", "piano", "tvStand", "box_room"),
    "bed": ("bed3", "bedWithTexture", "lettoCloud", "iron_bed", "captains-bed", "juniorBed", "children_bed", "Scopia#bed1"),
    "bedside table": ("bedsideTable", "bedsideTable2"),
    "wardrobe": ("wardrobe", "wardrobe1", "wardrobe2", "wardrobeWithSlidingDoors", "cupboard"),
    "dresser": ("dressing-table", "chest", "dresserWithDrawers", "changing-table"),
    "desk": ("desk", "lbDesk", "biurko3", "officeTable", "simpleDesk", "kids_wooden_desk", "kids_desk_table"),
    "desk chair": ("office-chair", "office_chair", "kids_desk_chair"),
    "office": ("filing-cabinet", "office_box", "office_furniture1", "water_cooler", "whiteBoard", "sef-kasa"),
    "counter": (
        "kitchenSink", "kitchenLowerCabinet", "kitchenDrawersCabinet", "sinkCabinet", "lowerCabinet", "drawersCabinet",
        "doubleOven", "largeStove", "clothes_washing_machine",
    ),
    "fridge": ("fridge", "largeFridge", "refrigerator", "highCabinet"),
    "plant": ("ficus", "plant", "maceta", "spatifilum", "yuccaPlant", "mediumIndoorPlant", "living_lamp"),
    "thing": (
        "crate", "barrel", "doll-house", "caballito", "electricGuitar", "trunk-large", "ammoBox", "suitcase", "green_stool",
    ),
}  # fmt: skip

SMALL: tuple[str, ...] = (
    "apples", "bonsai-tree", "bowlWithFruits", "teapot", "tulips", "teddyBear", "book", "littlePlant", "table_lamp",
    "lamp", "radio", "jar", "vase1", "laptop", "orchids", "chessboard", "toyTrain", "frame1", "newspaper", "candle",
    "succulentPlant", "tableFan",
)  # fmt: skip

Line = tuple[str, str, int, int]
RECIPES: dict[str, tuple[Line, ...]] = {
    "living room": (
        ("sofa", "wall", 1, 1), ("coffee table", "before sofa", 1, 1), ("shelf", "wall", 1, 2), ("sideboard", "wall", 1, 2),
        ("armchair", "open", 1, 2), ("plant", "wall", 1, 2), ("thing", "wall", 0, 2),
    ),
    "bedroom": (
        ("bed", "wall", 1, 1), ("wardrobe", "wall", 1, 1), ("bedside table", "wall", 1, 2), ("dresser", "wall", 1, 1),
        ("shelf", "wall", 0, 1), ("chair", "open", 0, 1), ("plant", "wall", 1, 2), ("thing", "wall", 1, 2),
    ),
    "study": (
        ("desk", "wall", 1, 1), ("desk chair", "before desk", 1, 1), ("shelf", "wall", 1, 2), ("office", "wall", 1, 2),
        ("armchair", "open", 1, 1), ("plant", "wall", 1, 2), ("thing", "wall", 0, 2),
    ),
    "dining room": (
        ("table", "middle", 1, 1), ("chair", "around table", 3, 4), ("sideboard", "wall", 1, 1), ("shelf", "wall", 1, 1),
        ("plant", "wall", 1, 2), ("thing", "wall", 0, 1),
    ),
    "kitchen": (
        ("table", "middle", 1, 1), ("chair", "around table", 2, 4), ("fridge", "wall", 1, 1), ("counter", "wall", 3, 4),
        ("plant", "wall", 0, 1), ("thing", "wall", 0, 1),
    ),
}  # fmt: skip
