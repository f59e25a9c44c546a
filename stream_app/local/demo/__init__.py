"""`shunt demo`: the whole system on this machine, on real Kafka and real Triton, fed, watched and accounted for."""
