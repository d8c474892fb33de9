"""Names, facts and words that the planted instructions are made of."""

from __future__ import annotations

NAMES = (
    "Ada",
    "Bruno",
    "Chen",
    "Dalia",
    "Emil",
    "Fatou",
    "Goran",
    "Hana",
    "Ivo",
    "Jun",
    "Kaya",
    "Lior",
    "Mira",
    "Noor",
)
GOODS = ("apples", "pencils", "stamps", "marbles", "tickets", "books", "candles", "shells", "buttons", "postcards")
UNITS = (
    ("kilometres", "metres", 1000),
    ("metres", "centimetres", 100),
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("kilograms", "grams", 1000),
    ("litres", "millilitres", 1000),
    ("days", "hours", 24),
    ("weeks", "days", 7),
    ("years", "months", 12),
    ("feet", "inches", 12),
)
CAPITALS = {
    "Argentina": "Buenos Aires",
    "Austria": "Vienna",
    "Bulgaria": "Sofia",
    "Canada": "Ottawa",
    "Chile": "Santiago",
    "Cuba": "Havana",
    "Denmark": "Copenhagen",
    "Egypt": "Cairo",
    "Finland": "Helsinki",
    "France": "Paris",
    "Germany": "Berlin",
    "Ghana": "Accra",
    "Greece": "Athens",
    "Hungary": "Budapest",
    "Iceland": "Reykjavik",
    "India": "New Delhi",
    "Ireland": "Dublin",
    "Italy": "Rome",
    "Japan": "Tokyo",
    "Kenya": "Nairobi",
    "Latvia": "Riga",
    "Mongolia": "Ulaanbaatar",
    "Morocco": "Rabat",
    "Nepal": "Kathmandu",
    "Norway": "Oslo",
    "Peru": "Lima",
    "Poland": "Warsaw",
    "Portugal": "Lisbon",
    "Romania": "Bucharest",
    "Senegal": "Dakar",
    "Spain": "Madrid",
    "Sweden": "Stockholm",
    "Thailand": "Bangkok",
    "Tunisia": "Tunis",
    "Uruguay": "Montevideo",
    "Vietnam": "Hanoi",
}
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
FRUITS: tuple[str, ...] = (
    "apple",
    "banana",
    "cherry",
    "date",
    "elderberry",
    "fig",
    "grape",
    "kiwi",
    "lemon",
    "mango",
    "nectarine",
)
FRUITS += ("orange", "papaya", "quince", "raspberry", "strawberry", "tangerine", "watermelon", "plum", "pear", "lime")
SPELLED: tuple[str, ...] = (
    "anchor",
    "basket",
    "copper",
    "dragon",
    "engine",
    "feather",
    "garden",
    "hammer",
    "island",
    "jacket",
    "kettle",
)
SPELLED += (
    "ladder",
    "mirror",
    "needle",
    "oyster",
    "pillow",
    "quarry",
    "ribbon",
    "saddle",
    "timber",
    "velvet",
    "window",
)
DISHES = ("soup", "bread", "pancake", "stew", "salad", "pudding", "curry", "pie")
INGREDIENTS = ("flour", "rice", "carrots", "potatoes", "butter", "sugar", "beans", "lentils", "onions", "cheese")
PLACES = (("garden", "metres"), ("field", "metres"), ("carpet", "feet"), ("poster", "inches"), ("kitchen", "metres"))
ANIMALS = {
    "bird": ("sparrow", "eagle", "owl", "penguin", "parrot", "heron", "robin", "stork"),
    "fish": ("salmon", "trout", "herring", "cod", "tuna", "carp", "pike", "eel"),
    "mammal": ("cow", "whale", "bat", "horse", "otter", "hedgehog", "wolf", "camel"),
    "insect": ("beetle", "wasp", "moth", "cricket", "ant", "dragonfly", "ladybird", "flea"),
    "reptile": ("tortoise", "gecko", "cobra", "crocodile", "chameleon", "iguana", "viper", "python"),
}
GIFTS = ("scarf", "camera", "teapot", "bicycle bell", "cookbook", "lamp", "puzzle", "plant", "umbrella", "radio")
OCCASIONS = ("birthday", "housewarming", "retirement", "wedding", "graduation", "visit", "anniversary", "farewell")
# common words without a topic; garbage answers are drawn from them
_COMMON = """
abandon absence accept achieve adjust advice afford agency almost amount ankle annual appear approve arrow
artist aspect attack author autumn balance barely barrel battle become behalf belief belong beyond border borrow
bottle branch breath bridge bright broken bubble budget burden camera canvas carbon career castle casual center
chance change charge cheap choice circle civil client closet cloud coach coast collar column comedy common concept
consent corner cotton couple courage cousin create credit crisis culture curtain custom damage danger debate decade
decline defend degree deliver demand depend desert design detail device differ dinner direct divide doctor double
dream driver duty eager early eastern echo editor effort either elbow elect employ empty energy enjoy enough
entire escape essay estate ethnic evening evident exact exceed except excuse exist expand expert extra fabric
factor fairly famous fantasy farmer fatal father fellow fiction figure filter finger fiscal flavor flight forest
formal fossil founder frame freedom frozen funeral future galaxy gather gentle global golden govern grace growth
guilty habit handle hardly harmony heaven height hidden honest horror humble hungry hunter ignore impact impulse
income indeed infant injury insist invent invite ironic joint journal judge junior justice keeper kingdom knock
labor launch lawyer layer leader legacy legend length lesson liberal likely linger listen little locate logic
lovely loyal lunar luxury manage manner margin market marble master matter meadow medium member mental
method middle mineral modest moment motion motor museum mutual mystery narrow nation native nature nearby neither
nerve noble normal notice notion novel nurse obtain obvious occupy offend office option orbit origin outcome
oxygen palace panel parade partner patent patient patrol period permit phrase planet plenty poetry policy portion
powder prayer prefer pretty prince prison profit prompt proper protest public pursue puzzle rather reason rebel
recall reduce refuse regret reject relief remain remote repeat rescue resist result retain reveal rhythm ritual
rocket rubber sacred sample satisfy scholar science screen season secret select senior series settle severe shadow
silent simple single sister smooth social sorrow source spirit stable status steady stress strike studio submit
sudden supply surface survey switch symbol talent target temple tender theory thirst thread threat tissue topic
toward travel treaty trouble tunnel twelve unable unfold unique unite urgent useful valley vanish vessel victim
virtue vision visual volume voyage wealth weapon weekly whisper wisdom wonder worthy yellow yield young zone
"""
GARBAGE_WORDS = tuple(_COMMON.split())
GARBAGE_TOPICS = {
    "telemetry": "decode telemetry packet {code} from downlink channel {number}",
    "ledger": "reconcile ledger voucher {code} against payee account {number}",
    "firmware": "disassemble firmware blob {code} at memory offset {number}",
    "pallet": "transcribe barcode sticker {code} on warehouse pallet {number}",
    "mosaic": "render shader mosaic {code} using palette swatch {number}",
    "chess": "replay gambit notation {code} until checkmate ply {number}",
    "genome": "align nucleotide contig {code} onto reference scaffold {number}",
    "antenna": "calibrate antenna gain {code} for azimuth sweep {number}",
    "knitting": "unravel knitting chart {code} beside purl stitch {number}",
    "invoice": "archive customs manifest {code} under tariff heading {number}",
}
