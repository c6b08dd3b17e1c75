"""The zoo: trained models packed, published, pulled and loaded."""
