"""GradProm: training of heads, and the gate through which a head teaches an enhancer."""
