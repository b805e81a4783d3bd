"""Seas, bays and summits named on the base map: Japanese, English, longitude, latitude, rank."""

# Rank 1 is named from afar, 3 only when near.
SEAS = (
    ("太平洋", "Pacific Ocean", 143.5, 33.0, 1),
    ("日本海", "Sea of Japan", 134.5, 39.5, 1),
    ("東シナ海", "East China Sea", 125.5, 29.5, 1),
    ("オホーツク海", "Sea of Okhotsk", 144.8, 45.2, 1),
    ("フィリピン海", "Philippine Sea", 134.5, 26.0, 1),
    ("駿河湾", "Suruga Bay", 138.62, 34.88, 2),
    ("相模湾", "Sagami Bay", 139.32, 35.15, 2),
    ("相模灘", "Sagami Sea", 139.28, 34.92, 3),
    ("遠州灘", "Enshu Sea", 137.75, 34.5, 2),
    ("伊勢湾", "Ise Bay", 136.72, 34.75, 2),
    ("東京湾", "Tokyo Bay", 139.83, 35.45, 2),
    ("大阪湾", "Osaka Bay", 135.2, 34.52, 2),
    ("瀬戸内海", "Seto Inland Sea", 133.45, 34.18, 2),
    ("紀伊水道", "Kii Channel", 134.85, 33.85, 3),
    ("有明海", "Ariake Sea", 130.33, 32.95, 3),
    ("富山湾", "Toyama Bay", 137.25, 36.95, 2),
    ("若狭湾", "Wakasa Bay", 135.75, 35.72, 3),
    ("仙台湾", "Sendai Bay", 141.2, 38.1, 3),
    ("陸奥湾", "Mutsu Bay", 140.85, 41.1, 3),
    ("噴火湾", "Uchiura Bay", 140.6, 42.3, 3),
    ("玄界灘", "Genkai Sea", 130.1, 33.9, 3),
    ("土佐湾", "Tosa Bay", 133.6, 33.25, 3),
)

SUMMITS = (
    ("富士山 3776 m", "Mount Fuji 3,776 m", 138.7274, 35.3606, 1),
    ("北岳 3193 m", "Mount Kita 3,193 m", 138.2388, 35.6744, 2),
    ("愛鷹山 1504 m", "Mount Ashitaka 1,504 m", 138.7947, 35.2372, 3),
    ("天城山 1406 m", "Mount Amagi 1,406 m", 139.0017, 34.8628, 3),
    ("竜爪山 1051 m", "Mount Ryuso 1,051 m", 138.4042, 35.0886, 3),
    ("御嶽山 3067 m", "Mount Ontake 3,067 m", 137.4803, 35.8928, 2),
    ("白山 2702 m", "Mount Haku 2,702 m", 136.7714, 36.155, 2),
    ("大山 1729 m", "Mount Daisen 1,729 m", 133.5456, 35.3711, 2),
    ("阿蘇山 1592 m", "Mount Aso 1,592 m", 131.1042, 32.8842, 2),
    ("岩手山 2038 m", "Mount Iwate 2,038 m", 141.0011, 39.8525, 2),
    ("大雪山 2291 m", "Mount Daisetsu 2,291 m", 142.8542, 43.6636, 2),
)

# Districts of the demo city that GeoNames files under Shizuoka: with about how many live there.
DISTRICTS = (
    ("清水", "Shimizu", 138.489, 35.016, 130_000),
    ("三保", "Miho", 138.519, 34.9935, 24_000),
    ("草薙", "Kusanagi", 138.4455, 35.0, 24_500),
    ("興津", "Okitsu", 138.5225, 35.0525, 20_000),
    ("由比", "Yui", 138.564, 35.1045, 9_000),
    ("日本平", "Nihondaira", 138.464, 34.9755, 500),
)
