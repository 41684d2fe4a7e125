"""What ran the recorded cells: loops, layers and functions of other systems, as networks of ours."""
