"""The loop: samplers that make rounds until every sample is done."""
