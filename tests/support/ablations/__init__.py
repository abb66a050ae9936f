"""One kit of ablations for schedules, the checker and the races: each guard of the protocol, taken away."""
