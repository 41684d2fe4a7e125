"""What `simplify` knows: tables of rules, each of which makes one node simpler."""
