"""Tables: specification, planning, numbers and rendering, and the numbers of the paper."""
