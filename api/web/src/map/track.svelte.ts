// The way a moving Thing came: set by its panel, drawn by the map.
class Track {
  points = $state.raw<[number, number][]>([]);
}

export const track = new Track();
