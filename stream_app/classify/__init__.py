"""The hot path: every record is decoded, put to the small models, decided and delivered."""
